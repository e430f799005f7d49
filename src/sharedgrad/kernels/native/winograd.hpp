// 3×3 convolutions of stride 1 with fewer multiplications (Winograd 1980; Lavin & Gray 2016, arXiv:1509.09308).
//
// A tile of 2×2 outputs needs 4×4 inputs d. Transformed, the convolution becomes a product in each of 16 points:
//   y = Aᵀ [ Σ_c (G w Gᵀ) ∘ (Bᵀ d B) ] A        16 multiplications where the definition has 36
// and for each point ξ the sum over channels is a matrix product M[ξ] = U[ξ] · V[ξ], with vectors of samples as ever.
// The input gradient is the same with the kernel turned and transposed. In single precision alone: doubles are for
// checking and explaining, and keep to the definition's own products.
#pragma once

#include "conv.hpp"

namespace sharedgrad {
namespace {

constexpr int kPoints = 16;
constexpr int kFewChannels = 24, kFewSummed = 8;  // with fewer the transforms cost more than they spare
constexpr int kMostTiles = 16;                    // tiles of a strip
template <typename T>
constexpr int kAside = 5 * kWidth<T>;            // points begin in different sets of a cache
constexpr std::size_t kPointBytes = 32 << 10;    // of one point's inputs, to stay in the first-level cache
constexpr std::size_t kResultBytes = 512 << 10;  // of all points' outputs, beside the inputs in the second-level cache

template <typename T>
bool by_winograd(const Map<T>& out, const Map<T>& in, const Window& g, int least) {
    return sizeof(T) == 4 && in.lanes == kWidth<T> && g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 &&
           g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1 && in.channels >= least &&
           out.channels >= least;
}

// ---- the transforms

// Bᵀ applied to four values.
template <typename V>
inline void input_points(V (&d)[4]) {
    const V a = d[0] - d[2], b = d[1] + d[2], c = d[2] - d[1], e = d[1] - d[3];
    d[0] = a, d[1] = b, d[2] = c, d[3] = e;
}

// G applied to three values.
template <typename V>
inline void kernel_points(const V (&w)[3], V (&u)[4]) {
    const V half = V() + 0.5f;
    u[0] = w[0], u[1] = (w[0] + w[1] + w[2]) * half, u[2] = (w[0] - w[1] + w[2]) * half, u[3] = w[2];
}

// A 4×4 tile of the input, whose upper left cell is (row, column) of the map with its margins, into its 16 points,
// `apart` from each other. What lies beyond the margins is read by no output, and taken as zero.
template <typename T>
void transform_input(T* to, std::ptrdiff_t apart, const T* channel, const Map<T>& in, int row, int column) {
    using V = Vector<T>;
    const int height = in.top + in.height + in.bottom, width = in.left + in.width + in.right;
    const T* const corner = channel + row * in.row() + std::ptrdiff_t(column) * kWidth<T>;
    const std::ptrdiff_t line = in.row();
    V d[4][4];
    if (row + 4 <= height && column + 4 <= width) {
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) d[i][j] = load(corner + i * line + j * kWidth<T>);
    } else {
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j)
                d[i][j] = row + i < height && column + j < width ? load(corner + i * line + j * kWidth<T>) : V{};
    }
    for (int i = 0; i < 4; ++i) input_points(d[i]);
    for (int j = 0; j < 4; ++j) {
        V column_of[4] = {d[0][j], d[1][j], d[2][j], d[3][j]};
        input_points(column_of);
        for (int i = 0; i < 4; ++i) store(to + (i * 4 + j) * apart, column_of[i]);
    }
}

// The 2×2 outputs of a tile from its 16 points.
template <typename T>
void transform_output(Vector<T> (&y)[2][2], const T* from, std::ptrdiff_t apart) {
    using V = Vector<T>;
    V half[2][4];
    for (int j = 0; j < 4; ++j) {
        const V a = load(from + j * apart), b = load(from + (4 + j) * apart), c = load(from + (8 + j) * apart),
                d = load(from + (12 + j) * apart);
        half[0][j] = a + b + c;
        half[1][j] = b - c - d;
    }
    for (int i = 0; i < 2; ++i) {
        y[i][0] = half[i][0] + half[i][1] + half[i][2];
        y[i][1] = half[i][1] - half[i][2] - half[i][3];
    }
}

// The kernels in their 16 points, tile of filters by tile: [point][tile][channel][filter]. `turned` reads them as the
// input gradient does: filters and channels change places, and each kernel is turned by 180°.
template <typename T>
const T* transform_kernels(const T* w, int filters, int channels, const Tiles& tiles, bool turned) {
    const std::size_t apart = std::size_t(filters) * channels;
    T* points = memory<T>(kWeights, kPoints * apart);
    parallel(tiles.count, 4.0 * kPoints * apart, [&](int tile) {
        const int first = tiles.begin(tile), size = tiles.size(tile);
        for (int c = 0; c < channels; ++c)
            for (int f = 0; f < size; ++f) {
                const T* from =
                    w + (turned ? std::size_t(c) * filters + first + f : std::size_t(first + f) * channels + c) * 9;
                T rows[4][3], u[4];
                for (int j = 0; j < 3; ++j) {
                    T column[3];
                    for (int i = 0; i < 3; ++i) column[i] = turned ? from[8 - (3 * i + j)] : from[3 * i + j];
                    kernel_points(column, u);
                    for (int i = 0; i < 4; ++i) rows[i][j] = u[i];
                }
                T* to = points + std::size_t(first) * channels + std::size_t(c) * size + f;
                for (int i = 0; i < 4; ++i) {
                    kernel_points(rows[i], u);
                    for (int j = 0; j < 4; ++j) to[(i * 4 + j) * apart] = u[j];
                }
            }
    });
    return points;
}

// ---- the product in one point

// sums[f][t] = Σ_c w[c][f] · x[c][t] for F filters and C vectors: `correlate` without all that a point does not need.
template <typename T, int F, int C>
void product(T* sums, std::ptrdiff_t channel, const T* x, const T* w, int channels) {
    Vector<T> sum[F][C] = {};
    for (const T* end = w + std::ptrdiff_t(channels) * F; w != end; w += F, x += channel) {
        Vector<T> v[C];
        for (int c = 0; c < C; ++c) v[c] = load(x + c * kWidth<T>);
        for (int f = 0; f < F; ++f) {
            const Vector<T> weight = splat(w[f]);
            for (int c = 0; c < C; ++c) sum[f][c] += weight * v[c];
        }
    }
    for (int f = 0; f < F; ++f)
        for (int c = 0; c < C; ++c) store(sums + f * channel + c * kWidth<T>, sum[f][c]);
}

constexpr int kPointColumns = kTileColumns;  // vectors of one product

template <typename T, int F>
void product(int columns, T* sums, std::ptrdiff_t channel, const T* x, const T* w, int channels) {
    switch (columns) {
        case 1:
            return product<T, F, 1>(sums, channel, x, w, channels);
        case 2:
            return product<T, F, 2>(sums, channel, x, w, channels);
        case 3:
            return product<T, F, 3>(sums, channel, x, w, channels);
        default:
            return product<T, F, kPointColumns>(sums, channel, x, w, channels);
    }
}

template <typename T>
void product(int filters, int columns, T* sums, std::ptrdiff_t channel, const T* x, const T* w, int channels) {
    switch (filters) {
        case 1:
            return product<T, 1>(columns, sums, channel, x, w, channels);
        case 2:
            return product<T, 2>(columns, sums, channel, x, w, channels);
        case 3:
            return product<T, 3>(columns, sums, channel, x, w, channels);
        case 4:
            return product<T, 4>(columns, sums, channel, x, w, channels);
#if defined(__AVX512F__)
        case 5:
            return product<T, 5>(columns, sums, channel, x, w, channels);
        case 6:
            return product<T, 6>(columns, sums, channel, x, w, channels);
#endif
    }
}

// ---- strips of tiles

// What a pass does besides the products.
template <typename T>
struct Finish {
    int pad_h, pad_w;
    bool turned;            // the kernels, for the input gradient
    const T* bias;          // or null
    bool relu, add;         // on the way out; to what is there
    const Map<T>* through;  // the output of a ReLU that the result goes back through, or null
};

template <typename T>
struct Winograd {
    const Map<T>&out, &in;
    Finish<T> last;
    Tiles filters;
    const T* weights;
    int across, strip, chunk;  // tiles of a row; tiles of a strip; tiles of filters whose sums are kept at once

    Winograd(const Map<T>& out, const Map<T>& in, const T* w, const Finish<T>& last)
        : out(out), in(in), last(last), filters(out.channels, kTileFilters), across(ceil_div(out.width, 2)) {
        weights = transform_kernels(w, out.channels, in.channels, filters, last.turned);
        const int fit = int(kPointBytes / sizeof(Vector<T>) / in.channels);
        strip = std::max(kPointColumns, std::min(kMostTiles, fit) / kPointColumns * kPointColumns);
        chunk = std::max(1, int(kResultBytes / (kPoints * strip * sizeof(Vector<T>))) / kTileFilters);
    }

    void run() const {
        const int tiles = across * ceil_div(out.height, 2), strips = ceil_div(tiles, strip);
        parallel(out.blocks() * strips, operations(out, in, {3, 3, 1, 1, 0, 0, 1, 1, 1}), [&](int task) {
            const int block = task / strips, first = task % strips * strip;
            one_strip(block, first, std::min(strip, tiles - first));
        });
    }

    void one_strip(int block, int first, int count) const {
        const std::ptrdiff_t channel = std::ptrdiff_t(count) * kWidth<T>, point = channel * in.channels + kAside<T>;
        T* inputs = memory<T>(kSplit, kPoints * point);
        for (int c = 0; c < in.channels; ++c) {
            const T* map = in.data + block * in.block() + c * in.channel();
            for (int t = 0; t < count; ++t)
                transform_input(inputs + c * channel + std::ptrdiff_t(t) * kWidth<T>, point, map, in,
                                (first + t) / across * 2 + in.top - last.pad_h,
                                (first + t) % across * 2 + in.left - last.pad_w);
        }
        for (int begin = 0; begin < filters.count; begin += chunk) {
            const int end = std::min(filters.count, begin + chunk), own = filters.begin(begin);
            const std::ptrdiff_t sums_point = channel * (filters.begin(end) - own) + kAside<T>;
            T* sums = memory<T>(kSums, kPoints * sums_point);
            for (int p = 0; p < kPoints; ++p) products(sums + p * sums_point, inputs + p * point, p, begin, end, count);
            for (int f = own; f < filters.begin(end); ++f)
                outputs(block, f, first, count, sums + (f - own) * channel, sums_point);
        }
    }

    // M[ξ] = U[ξ] · V[ξ] for some tiles of filters
    void products(T* sums, const T* inputs, int point, int begin, int end, int count) const {
        const std::ptrdiff_t channel = std::ptrdiff_t(count) * kWidth<T>;
        const T* w = weights + std::size_t(point) * out.channels * in.channels;
        for (int i = begin; i < end; ++i)
            for (int t = 0; t < count; t += kPointColumns)
                product(filters.size(i), std::min(kPointColumns, count - t),
                        sums + (filters.begin(i) - filters.begin(begin)) * channel + std::ptrdiff_t(t) * kWidth<T>,
                        channel, inputs + std::ptrdiff_t(t) * kWidth<T>,
                        w + std::size_t(filters.begin(i)) * in.channels, in.channels);
    }

    void outputs(int block, int f, int first, int count, const T* sums, std::ptrdiff_t apart) const {
        const Vector<T> b = splat(last.bias ? last.bias[f] : T(0));
        for (int t = 0; t < count; ++t) {
            const int h = (first + t) / across * 2, w = (first + t) % across * 2;
            Vector<T> y[2][2];
            transform_output(y, sums + std::ptrdiff_t(t) * kWidth<T>, apart);
            for (int i = 0; i < std::min(2, out.height - h); ++i) {
                T* const to = out.cell(block, f, h + i) + std::ptrdiff_t(w) * kWidth<T>;
                const T* const gate =
                    last.through ? last.through->cell(block, f, h + i) + std::ptrdiff_t(w) * kWidth<T> : nullptr;
                put(to, y[i][0] + b, gate);
                if (w + 1 < out.width) put(to + kWidth<T>, y[i][1] + b, gate ? gate + kWidth<T> : nullptr);
            }
        }
    }

    void put(T* to, Vector<T> v, const T* gate) const {
        if (last.add) v += load(to);
        if (last.relu) v = v <= T(0) ? Vector<T>{} : v;  // NaN stays NaN
        if (gate) v = load(gate) > T(0) ? v : Vector<T>{};
        store(to, v);
    }
};

}  // namespace
}  // namespace sharedgrad
