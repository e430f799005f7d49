// 3×3 convolutions of stride 1 with fewer multiplications (Winograd 1980; Lavin & Gray 2016, arXiv:1509.09308).
//
// A tile of 4×4 outputs needs 6×6 inputs d. Transformed, the convolution becomes a product in each of 36 points:
//   y = Aᵀ [ Σ_c (G w Gᵀ) ∘ (Bᵀ d B) ] A        36 multiplications where the definition has 144
// and for each point ξ the sum over channels is a matrix product M[ξ] = U[ξ] · V[ξ], with vectors of samples as ever.
// The input gradient is the same with the kernel turned and transposed. In single precision alone: doubles are for
// checking and explaining, and keep to the definition's own products. Where a tile holds Inf, NaN or numbers near the
// end of the range, its outputs are the definition's own sums too: an output that does not see them stays what it is.
#pragma once

#include "conv.hpp"
#include "pack.hpp"
#include "pool_2x2.hpp"

namespace sharedgrad {
namespace {

using WinogradMemory = Owner<kWeights, kInputs, kCells>;

constexpr int kOutputSide = 4, kInputSide = kOutputSide + 2;  // of a tile
constexpr int kPoints = kInputSide * kInputSide;
constexpr int kFewChannels = 16, kFewSummed = 8;  // with fewer the transforms cost more than they spare
constexpr int kAtOnce = 128;  // channels whose points, of a strip of tiles, stay in the second-level cache
template <typename T>
constexpr int kAside = 5 * kWidth<T>;  // points begin in different sets of a cache

// Along one axis, polynomials of degree 5 are told apart by their values in 0, ±a, ±b and ∞. These a and b round least.
constexpr float kA = 0.75f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;
constexpr float kBeyond = 1e20f;  // points times this are numbers: then all that is made of them are
constexpr float kA2PlusB2 = kA2 + kB2, kA2TimesB2 = kA2 * kB2;

inline bool three_by_three(const Window& g) {
    return g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 &&
           g.dilation_w == 1 && g.groups == 1;
}

template <typename T>
bool by_winograd(const Map<T>& out, const Map<T>& in, const Window& g, int least) {
    return sizeof(T) == 4 && in.lanes == kWidth<T> && three_by_three(g) && in.channels >= least &&
           out.channels >= least && minimal_filtering;
}

// ---- the transforms

// Bᵀ applied to six values: in each point the product of the other points' (x − p).
template <typename V>
inline void input_points(const V (&d)[kInputSide], V (&v)[kInputSide]) {
    const V even_a = d[4] - kB2 * d[2], odd_a = kA * (d[3] - kB2 * d[1]);
    const V even_b = d[4] - kA2 * d[2], odd_b = kB * (d[3] - kA2 * d[1]);
    v[0] = d[4] - kA2PlusB2 * d[2] + kA2TimesB2 * d[0];
    v[1] = even_a + odd_a, v[2] = even_a - odd_a;
    v[3] = even_b + odd_b, v[4] = even_b - odd_b;
    v[5] = d[5] - kA2PlusB2 * d[3] + kA2TimesB2 * d[1];
}

// G applied to three values: a polynomial's values, each over the product of the other points' distances.
template <typename V>
inline void kernel_points(const V (&w)[3], V (&u)[kInputSide]) {
    constexpr float a = 1 / (2 * kA2 * (kA2 - kB2)), b = 1 / (2 * kB2 * (kB2 - kA2));
    const V even_a = a * (w[0] + kA2 * w[2]), odd_a = (a * kA) * w[1];
    const V even_b = b * (w[0] + kB2 * w[2]), odd_b = (b * kB) * w[1];
    u[0] = (1 / kA2TimesB2) * w[0];
    u[1] = even_a + odd_a, u[2] = even_a - odd_a;
    u[3] = even_b + odd_b, u[4] = even_b - odd_b;
    u[5] = w[2];
}

// Aᵀ applied to the values in six points.
template <typename V>
inline void output_cells(const V (&m)[kInputSide], V (&y)[kOutputSide]) {
    const V even_a = m[1] + m[2], odd_a = kA * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = kB * (m[3] - m[4]);
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = kA2 * even_a + kB2 * even_b;
    y[3] = kA2 * odd_a + kB2 * odd_b + m[5];
}

// A tile of the input, cell(row, column), into its points, `apart` from each other. Returns zero, or NaN in the lanes
// where the tile's numbers are too large; the four corners' points together have a part of every cell.
template <typename T, typename Cell>
Vector<T> transform_cells(T* to, std::ptrdiff_t apart, const Cell& cell) {
    constexpr int end = kInputSide - 1;
    Vector<T> half[kInputSide][kInputSide], points[kInputSide][kInputSide];
    for (int j = 0; j < kInputSide; ++j) {
        Vector<T> d[kInputSide], v[kInputSide];
        for (int i = 0; i < kInputSide; ++i) d[i] = cell(i, j);
        input_points(d, v);
        for (int i = 0; i < kInputSide; ++i) half[i][j] = v[i];
    }
    for (int i = 0; i < kInputSide; ++i) {
        input_points(half[i], points[i]);
        for (int j = 0; j < kInputSide; ++j) store(to + (i * kInputSide + j) * apart, points[i][j]);
    }
    Vector<T> range = {};
    for (const Vector<T>& corner : {points[0][0], points[0][end], points[end][0], points[end][end]})
        range += corner * T(kBeyond) * T(0);
    return range;
}

// Rows and columns beyond the margins are read by no output, and taken as zero.
template <typename T>
Vector<T> transform_input(T* to, std::ptrdiff_t apart, const T* from, std::ptrdiff_t line, int rows, int columns) {
    const auto cell = [&](int i, int j) { return load(from + i * line + j * kWidth<T>); };
    if (rows == kInputSide && columns == kInputSide) return transform_cells(to, apart, cell);
    return transform_cells(to, apart, [&](int i, int j) { return i < rows && j < columns ? cell(i, j) : Vector<T>{}; });
}

// The outputs of a tile from its points.
template <typename T>
void transform_output(Vector<T> (&y)[kOutputSide][kOutputSide], const T* from, std::ptrdiff_t apart) {
    using V = Vector<T>;
    V half[kOutputSide][kInputSide];
    for (int j = 0; j < kInputSide; ++j) {
        V m[kInputSide], cells[kOutputSide];
        for (int i = 0; i < kInputSide; ++i) m[i] = load(from + (i * kInputSide + j) * apart);
        output_cells(m, cells);
        for (int i = 0; i < kOutputSide; ++i) half[i][j] = cells[i];
    }
    for (int i = 0; i < kOutputSide; ++i) output_cells(half[i], y[i]);
}

// Some kernels in their points: [point][filter][channel]. In w filters and channels lie so far from each other, and
// each kernel may be turned by 180°, as the input gradient reads it.
template <typename T>
struct SmallKernels {
    static constexpr int V = kWidth<T>;
    const T* w;
    std::ptrdiff_t filter, channel;
    bool turned;

    // w is (filters, channels, 3, 3), or (channels, filters, 3, 3) where it is turned
    static SmallKernels of(const T* w, int filters, int channels, bool turned) {
        return {w, 9 * (turned ? 1 : channels), 9 * (turned ? filters : 1), turned};
    }

    // sums[row][column] = Σ w · x over some channels, by the definition; x(channel, row, column) are a tile's inputs
    template <typename Input>
    void define(Vector<T> (&sums)[kOutputSide][kOutputSide], int f, int first, int end, const Input& x) const {
        for (auto& row : sums)
            for (auto& sum : row) sum = Vector<T>{};
        for (int c = first; c < end; ++c) {
            const T* const kernel = w + f * filter + c * channel;
            for (int i = 0; i < kOutputSide; ++i)
                for (int j = 0; j < kOutputSide; ++j)
                    for (int k = 0; k < 9; ++k)
                        sums[i][j] += splat(kernel[turned ? 8 - k : k]) * x(c, i + k / 3, j + k % 3);
        }
    }

    void transform(T* to, int first_filter, int end_filter, int first_channel, int end_channel) const {
        const std::ptrdiff_t apart = std::ptrdiff_t(end_filter - first_filter) * (end_channel - first_channel);
        for (int f = first_filter; f < end_filter; ++f)
            for (int c = first_channel, n; c < end_channel; c += n, to += n) {
                n = std::min(V, end_channel - c);
                transform_lanes(to, apart, f, c, n);
            }
    }

    // n channels of a filter, into points that lie so far apart
    void transform_lanes(T* to, std::ptrdiff_t apart, int f, int c, int n) const {
        const T* kernels[V];
        for (int l = 0; l < n; ++l) kernels[l] = w + f * filter + (c + l) * channel;
        alignas(64) T cells[9][V];
        interleave<T>(cells[0], kernels, 9, n);
        Vector<T> half[kInputSide][3];
        for (int j = 0; j < 3; ++j) {
            Vector<T> column[3], u[kInputSide];
            for (int i = 0; i < 3; ++i) column[i] = load(cells[turned ? 8 - (3 * i + j) : 3 * i + j]);
            kernel_points(column, u);
            for (int i = 0; i < kInputSide; ++i) half[i][j] = u[i];
        }
        for (int i = 0; i < kInputSide; ++i) {
            Vector<T> u[kInputSide];
            kernel_points(half[i], u);
            for (int j = 0; j < kInputSide; ++j) store_part(to + (i * kInputSide + j) * apart, u[j], n);
        }
    }
};

// ---- tiles

// The tiles of all blocks of a map, row by row.
struct Tiling {
    int down, across, count;

    template <typename T>
    explicit Tiling(const Map<T>& m)
        : down(ceil_div(m.height, kOutputSide)),
          across(ceil_div(m.width, kOutputSide)),
          count(m.blocks() * down * across) {}

    struct Place {
        int block, h, w;
    };
    Place place(int tile) const {
        return {tile / (across * down), tile / across % down * kOutputSide, tile % across * kOutputSide};
    }
};

// What a tile reads of channel 0, as far as there is something.
template <typename T>
struct Patch {
    const T* from;  // (rows, columns, lanes), in the map's own rows
    int rows, columns;

    Patch(const Map<T>& in, const Tiling::Place& at, int pad_h, int pad_w)
        : from(in.cell(at.block, 0, at.h - pad_h) + std::ptrdiff_t(at.w - pad_w) * kWidth<T>),
          rows(std::min(kInputSide, in.height + in.bottom - (at.h - pad_h))),
          columns(std::min(kInputSide, in.width + in.right - (at.w - pad_w))) {}
};

// ---- the products

// sums (F, C, lanes) = Σ_k w (F, count) · x (count, C, lanes), or added to what they hold: `correlate` without all that
// a point does not need.
template <typename T>
struct PointProduct {
    template <int F, int C>
    static void run(T* sums, const T* x, const T* w, int count, bool resume) {
        constexpr int V = kWidth<T>;
        Vector<T> sum[F][C];
        for (int f = 0; f < F; ++f)
            for (int c = 0; c < C; ++c) sum[f][c] = resume ? load(sums + (f * C + c) * V) : Vector<T>{};
        for (std::ptrdiff_t k = 0; k < count; ++k) {
            Vector<T> v[C];
            for (int c = 0; c < C; ++c) v[c] = load(x + (k * C + c) * V);
            for (int f = 0; f < F; ++f) {
                const Vector<T> weight = splat(w[std::ptrdiff_t(f) * count + k]);
                for (int c = 0; c < C; ++c) sum[f][c] += weight * v[c];
            }
        }
        for (int f = 0; f < F; ++f)
            for (int c = 0; c < C; ++c) store(sums + (f * C + c) * V, sum[f][c]);
    }
};

// ---- strips of tiles

// What a pass does besides the products.
template <typename T>
struct Finish {
    int pad_h, pad_w;
    bool turned;                // the kernels, for the input gradient
    const T* bias;              // or null
    bool relu, add;             // on the way out; to what is there
    const Map<T>* through;      // the output of a ReLU that the result goes back through, or null
    const Pooling<T>* pooling;  // what takes the place of the outputs, or null
};

// The outputs of a tile to where they belong, in a channel of a block.
template <typename T>
void put_tile(const Vector<T> (&y)[kOutputSide][kOutputSide], Vector<T> bias, bool add, bool relu, const Map<T>& out,
              const Map<T>* through, int block, int c, const Tiling::Place& at) {
    for (int i = 0; i < std::min(kOutputSide, out.height - at.h); ++i) {
        T* to = out.cell(block, c, at.h + i) + at.w * kWidth<T>;
        const T* gate = through ? through->cell(block, c, at.h + i) + at.w * kWidth<T> : nullptr;
        for (int j = 0; j < std::min(kOutputSide, out.width - at.w); ++j, to += kWidth<T>) {
            store(to, finished<T>(y[i][j] + bias, add, relu, to, gate, load<T>));
            if (gate) gate += kWidth<T>;
        }
    }
}

template <typename T>
struct Winograd {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    Finish<T> last;
    Tiling tiles;
    EvenRanges filters, channels;
    SmallKernels<T> kernels;
    const T* weights;  // [tile of filters][chunk of channels], each as they are transformed

    Winograd(const Map<T>& out, const Map<T>& in, const T* w, const Finish<T>& last)
        : out(out),
          in(in),
          last(last),
          tiles(out),
          filters(out.channels, kTileFilters),
          channels(in.channels, kAtOnce),
          kernels(SmallKernels<T>::of(w, out.channels, in.channels, last.turned)),
          weights(transform()) {}

    const T* transform() const {
        const std::size_t all = std::size_t(kPoints) * out.channels * in.channels;
        T* const to = WinogradMemory::memory<T, kWeights>(all);
        parallel(filters.count * channels.count, 4.0 * all, [&](int task) {
            const int i = task / channels.count, chunk = task % channels.count;
            kernels.transform(to + place_of(i, chunk), filters.begin(i), filters.begin(i + 1), channels.begin(chunk),
                              channels.begin(chunk + 1));
        });
        return to;
    }

    std::size_t place_of(int tile, int chunk) const {
        return kPoints * (std::size_t(filters.begin(tile)) * in.channels +
                          std::size_t(filters.size(tile)) * channels.begin(chunk));
    }

    void run() const {
        const EvenRanges strips(tiles.count, kTileColumns);
        parallel(strips.count, operations(out, in, {3, 3, 1, 1, 0, 0, 1, 1, 1}), [&](int strip) {
            Tiling::Place places[kTileColumns];
            for (int t = 0; t < strips.size(strip); ++t) places[t] = tiles.place(strips.begin(strip) + t);
            for (int chunk = 0; chunk < channels.count; ++chunk) one_strip(places, strips.size(strip), chunk);
        });
    }

    // What some channels add to a strip of tiles.
    void one_strip(const Tiling::Place* places, int count, int chunk) const {
        const int first = channels.begin(chunk), size = channels.size(chunk);
        const std::ptrdiff_t channel = std::ptrdiff_t(count) * V, point = channel * size + kAside<T>;
        T* const inputs = WinogradMemory::memory<T, kInputs>(kPoints * point);
        Vector<T> range = {};
        for (int t = 0; t < count; ++t) {
            const Patch<T> patch(in, places[t], last.pad_h, last.pad_w);
            for (int c = 0; c < size; ++c)
                range += transform_input(inputs + c * channel + t * V, point, patch.from + (first + c) * in.channel(),
                                         in.row(), patch.rows, patch.columns);
        }
        const bool far = any(range != range);
        for (int i = 0; i < filters.count; ++i) {
            const int own = filters.begin(i), together = filters.size(i);
            const std::ptrdiff_t apart = channel * together;
            const T* w = weights + place_of(i, chunk);
            alignas(64) T sums[kPoints * kTileFilters * kTileColumns * V];
            const auto multiply = tile_for<PointProduct<T>>(together, count);
            for (int p = 0; p < kPoints; ++p, w += together * size) {
                multiply(sums + p * apart, inputs + p * point, w, size, false);
                if (p < together * count && !last.pooling) fetch(places[p % count], own + p / count);
            }
            if (last.pooling) {
                pool(places, count, own, together, sums, apart, chunk, far);
                continue;
            }
            for (int f = 0; f < together; ++f)
                for (int t = 0; t < count; ++t)
                    outputs(places[t], own + f, sums + (f * count + t) * V, apart, chunk, far);
        }
    }

    // What some channels add to the outputs of a tile: from its points, or by the definition.
    void sums_of_tile(Vector<T> (&y)[kOutputSide][kOutputSide], const Tiling::Place& at, int f, const T* points,
                      std::ptrdiff_t apart, int chunk, bool far) const {
        if (!far) return transform_output(y, points, apart);
        const Patch<T> patch(in, at, last.pad_h, last.pad_w);
        kernels.define(y, f, channels.begin(chunk), channels.begin(chunk + 1), [&](int c, int i, int j) {
            return i < patch.rows && j < patch.columns ? load(patch.from + c * in.channel() + i * in.row() + j * V)
                                                       : Vector<T>{};
        });
    }

    // The cells that are soon written, while products keep the arithmetic busy.
    void fetch(const Tiling::Place& at, int f) const {
        for (int i = 0; i < std::min(kOutputSide, out.height - at.h); ++i)
            for (int j = 0; j < std::min(kOutputSide, out.width - at.w); ++j)
                __builtin_prefetch(out.cell(at.block, f, at.h + i) + (at.w + j) * V, 1);
    }

    // The windows of 2×2 outputs in these tiles, pooled. What channels before have added up waits in a slot.
    void pool(const Tiling::Place* places, int count, int own, int together, const T* sums, std::ptrdiff_t apart,
              int chunk, bool far) const {
        constexpr int cells = kOutputSide * kOutputSide;
        const bool whole = chunk == channels.count - 1;
        T* const waiting = channels.count > 1
                               ? WinogradMemory::memory<T, kCells>(std::size_t(out.channels) * count * cells * V)
                               : nullptr;
        for (int t = 0; t < count; ++t)
            for (int f = own; f < own + together; ++f) {
                const Tiling::Place& at = places[t];
                alignas(64) T tile[cells * V];
                T* const held = waiting + (std::ptrdiff_t(f) * count + t) * cells * V;
                const Vector<T> bias = splat(last.bias && whole ? last.bias[f] : T(0));
                Vector<T> y[kOutputSide][kOutputSide];
                sums_of_tile(y, at, f, sums + ((f - own) * count + t) * V, apart, chunk, far);
                for (int i = 0; i < cells; ++i) {
                    const Vector<T> v = y[i / kOutputSide][i % kOutputSide] + bias;
                    store((whole ? tile : held) + i * V, chunk ? v + load(held + i * V) : v);
                }
                if (whole)
                    last.pooling->pool(*last.pooling, tile, kOutputSide * V, at.block, f, at.h / 2, at.w / 2,
                                       std::min(kOutputSide, out.height - at.h) / 2,
                                       std::min(kOutputSide, out.width - at.w) / 2);
            }
    }

    void outputs(const Tiling::Place& at, int f, const T* sums, std::ptrdiff_t apart, int chunk, bool far) const {
        const bool add = last.add || chunk > 0, whole = chunk == channels.count - 1;
        const Vector<T> bias = splat(last.bias && whole ? last.bias[f] : T(0));
        Vector<T> y[kOutputSide][kOutputSide];
        sums_of_tile(y, at, f, sums, apart, chunk, far);
        put_tile(y, bias, add, last.relu && whole, out, last.through, at.block, f, at);
    }
};

}  // namespace
}  // namespace sharedgrad
