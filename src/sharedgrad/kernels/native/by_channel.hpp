// Convolutions of few samples: the lanes are channels, and every sample's rows are as long as they are.
//
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]      lanes: filters; the inputs, one number each, meet vectors of weights
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]     lanes: input channels
//   dw[f,t] = Σ_o dy[f,o] · x[o·stride + t]     lanes: filters
#pragma once

#include <atomic>

#include "conv.hpp"
#include "maps.hpp"
#include "winograd.hpp"

namespace sharedgrad {
namespace {

using ByChannelMemory = Owner<kTaps, kPlaces, kWeights, kSums>;

constexpr int kDeltasAtOnce = 128;  // of upstream gradients, which stay in the first-level cache while taps go by
constexpr int kSumsAtOnce = 96;     // whose sums a task holds

// Where channel c of the first sample lies.
template <typename T>
std::ptrdiff_t lane_of(const Map<T>& m, int c) {
    return c / m.lanes * m.block() + c % m.lanes;
}

// Kernels with channels in the lanes: [tile of vectors][term][vector][lane]. The lanes are filters and the terms
// (c, cell); or turned, they are input channels and the terms (f, cell).
template <typename T>
struct LaneKernels {
    static constexpr int V = kWidth<T>;
    int lanes, terms;
    EvenRanges tiles;
    T* packed;

    LaneKernels(const T* w, int filters, int channels, int cells, bool turned)
        : lanes(turned ? channels : filters),
          terms((turned ? filters : channels) * cells),
          tiles(ceil_div(lanes, V), kTileColumns),
          packed(ByChannelMemory::memory<T, kWeights>(std::size_t(tiles.begin(tiles.count)) * V * terms)) {
        const int runs = turned ? filters : 1, run = turned ? cells : terms;
        const std::ptrdiff_t filter = std::ptrdiff_t(channels) * cells, lane = turned ? cells : filter;
        parallel(tiles.begin(tiles.count), double(lanes) * terms, [&](int v) {
            const int tile = tiles.of(v), alive = std::min(V, lanes - v * V);
            T* const to = packed + (std::ptrdiff_t(tiles.begin(tile)) * terms + v - tiles.begin(tile)) * V;
            const std::ptrdiff_t step = std::ptrdiff_t(tiles.size(tile)) * V;
            for (int i = 0; i < runs; ++i) {
                const T* rows[V];
                for (int l = 0; l < alive; ++l) rows[l] = w + i * filter + (v * V + l) * lane;
                interleave<T>(to + i * run * step, rows, run, alive, step);
            }
        });
    }
    const T* tile(int i) const { return packed + std::ptrdiff_t(tiles.begin(i)) * terms * V; }
};

// ---- tiles of sums: some numbers of a map, each beside some vectors

constexpr int kMostNumbers = 8;
constexpr int numbers_beside(int vectors) { return std::min(kMostNumbers, kTileFilters * kTileColumns / vectors); }

template <typename Tile, int R, int C>
constexpr auto tile_or_null() {
    if constexpr (R <= numbers_beside(C))
        return &Tile::template run<R, C>;
    else
        return decltype(&Tile::template run<1, 1>)(nullptr);
}
template <typename Tile, int... RC>
constexpr auto lane_tiles_of(std::integer_sequence<int, RC...>) {
    return std::array{tile_or_null<Tile, RC / kTileColumns + 1, RC % kTileColumns + 1>()...};
}
template <typename Tile>
constexpr auto kLaneTiles = lane_tiles_of<Tile>(std::make_integer_sequence<int, kMostNumbers * kTileColumns>());
template <typename Tile>
constexpr auto lane_tile(int numbers, int vectors) {
    return kLaneTiles<Tile>[(numbers - 1) * kTileColumns + vectors - 1];
}

// sums (F positions, C vectors, lanes) = Σ_k w[places[k]] · x[position][cells[k]]
template <typename T>
struct LaneSums {
    template <int F, int C>
    static void run(T* sums, const T* w, const std::ptrdiff_t* places, const T* x, std::ptrdiff_t position,
                    const std::ptrdiff_t* cells, int count) {
        add_products<T, F, C>(
            sums, C * kWidth<T>, w, [=](std::ptrdiff_t k) { return places[k] * (C * kWidth<T>); }, x, position,
            [=](std::ptrdiff_t k) { return cells[k]; }, count, false);
    }
};

// Some of a map's cells: rows × columns of them, from (top, left) on.
struct Cells {
    int top, left, down, across, rows, columns;
};

// The outputs at some cells, each from inputs that lie `step` from those of the one before.
template <typename T>
struct ByChannel {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const LaneKernels<T>& w;
    Finish<T> last;
    Cells at;
    int step_h, step_w;
    const std::ptrdiff_t *cells, *places;  // (count): what is added up, as it lies in `in` and in w
    int count;
    int vectors = out.blocks_of_sample();

    void run() const {
        const int samples = out.blocks() / vectors, all = samples * w.tiles.count;
        const EvenRanges rows(at.rows, ceil_div(at.rows, ceil_div(kTasks, all)));
        parallel(all * rows.count, double(samples) * at.rows * at.columns * vectors * count, [&](int task) {
            const int piece = task % rows.count, tile = task / rows.count % w.tiles.count;
            for (int h = rows.begin(piece); h < rows.begin(piece + 1); ++h)
                row(task / rows.count / w.tiles.count, tile, h);
        });
    }

    void row(int sample, int tile, int h) const {
        const int first = w.tiles.begin(tile), size = w.tiles.size(tile);
        const EvenRanges columns(at.columns, numbers_beside(size));
        const std::ptrdiff_t position = std::ptrdiff_t(step_w) * in.lanes;
        const T* const from = in.cell(sample * in.blocks_of_sample(), 0, h * step_h);
        alignas(64) T sums[kTileFilters * kTileColumns * V];
        for (int i = 0; i < columns.count; ++i) {
            const int column = columns.begin(i);
            lane_tile<LaneSums<T>>(columns.size(i), size)(sums, w.tile(tile), places, from + column * position,
                                                          position, cells, count);
            for (int v = 0; v < size; ++v)
                put(sums + v * V, size * V, columns.size(i), sample * vectors + first + v, h, column);
        }
    }

    // A vector's outputs at neighbouring cells.
    void put(const T* sums, int apart, int positions, int block, int h, int column) const {
        const int first = block % vectors * V, alive = std::min(V, out.lane_channels - first), lanes = out.lanes;
        const Vector<T> bias = last.bias ? load_part(last.bias + first, alive) : Vector<T>{};
        const std::ptrdiff_t begin = std::ptrdiff_t(at.left + column * at.across) * lanes,
                             step = std::ptrdiff_t(at.across) * lanes;
        T* const to = out.cell(block, 0, at.top + h * at.down) + begin;
        const T* const gate = last.through ? last.through->cell(block, 0, at.top + h * at.down) + begin : nullptr;
        const auto read = [lanes](const T* from) { return load_part(from, lanes); };
        for (int p = 0; p < positions; ++p)
            store_part(to + p * step,
                       finished<T>(load(sums + p * apart) + bias, last.add, last.relu, to + p * step,
                                   gate ? gate + p * step : nullptr, read),
                       lanes);
    }
};

// ---- 3×3 convolutions of stride 1 with fewer multiplications: see winograd.hpp

using LaneWinogradMemory = Owner<kWeights, kInputs>;

constexpr int kEnoughTiles = 12;  // for which the kernels' transforms pay

template <typename T>
struct LaneWinograd {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    Finish<T> last;
    int channels = in.lane_channels, vectors = out.blocks_of_sample();
    Tiling tiles{samples_of(out)};
    EvenRanges groups{tiles.count, kTileFilters}, parts{vectors, kTileColumns};
    std::ptrdiff_t inputs_point = std::ptrdiff_t(tiles.count) * channels + kAside<T>;

    static Map<T> samples_of(Map<T> m) {
        m.samples = m.blocks() / m.blocks_of_sample(), m.lanes = 1;
        return m;
    }

    static bool serves(const Map<T>& out, const Map<T>& in, const Window& g) {
        const int least = std::max(V, kFewChannels);
        return minimal_filtering && sizeof(T) == 4 && three_by_three(g) && in.lane_channels % V == 0 &&
               out.lane_channels % V == 0 && in.lane_channels >= least && out.lane_channels >= least &&
               Tiling(samples_of(out)).count >= kEnoughTiles;
    }

    // False, and nothing done, where the inputs hold numbers that are too large for it.
    bool run(const T* w) const {
        T* const points = LaneWinogradMemory::memory<T, kWeights>(std::size_t(kPoints) * vectors * V * channels);
        T* const inputs = LaneWinogradMemory::memory<T, kInputs>(kPoints * inputs_point);
        const SmallKernels<T> by_filter = SmallKernels<T>::of(w, out.lane_channels, channels, last.turned);
        const SmallKernels<T> kernels{w, by_filter.channel, by_filter.filter, last.turned};  // filters in the lanes
        const double work = double(tiles.count) * kPoints * channels * vectors;
        std::atomic<bool> far{false};
        parallel(vectors + tiles.count, work, [&](int task) {
            if (task < vectors)
                transform_kernels(points, kernels, task);
            else if (transform(inputs, task - vectors))
                far = true;
        });
        if (far) return false;
        parallel(parts.count * groups.count, work,
                 [&](int task) { multiply(points, inputs, task / groups.count, task % groups.count); });
        return true;
    }

    // [part][point][channel][vector]
    void transform_kernels(T* points, const SmallKernels<T>& kernels, int v) const {
        const int part = parts.of(v), size = parts.size(part);
        T* const to = points + (std::ptrdiff_t(kPoints) * channels * parts.begin(part) + v - parts.begin(part)) * V;
        for (int c = 0; c < channels; ++c)
            kernels.transform_lanes(to + std::ptrdiff_t(c) * size * V, std::ptrdiff_t(channels) * size * V, c, v * V,
                                    V);
    }

    // A tile into [point][tile][channel]; whether its numbers are too large.
    bool transform(T* inputs, int tile) const {
        Tiling::Place at = tiles.place(tile);
        at.block *= in.blocks_of_sample();
        const Patch<T> patch(in, at, last.pad_h, last.pad_w);
        Vector<T> range = {};
        for (int b = 0; b < in.blocks_of_sample(); ++b)
            range += transform_input(inputs + std::ptrdiff_t(tile) * channels + b * V, inputs_point,
                                     patch.from + b * in.block(), in.row(), patch.rows, patch.columns);
        return any(range != range);
    }

    void multiply(const T* points, const T* inputs, int part, int group) const {
        const int count = groups.size(group), size = parts.size(part);
        const std::ptrdiff_t apart = std::ptrdiff_t(count) * size * V, own = std::ptrdiff_t(channels) * size * V;
        const T* const w = points + std::ptrdiff_t(kPoints) * channels * parts.begin(part) * V;
        alignas(64) T sums[kPoints * kTileFilters * kTileColumns * V];
        for (int p = 0; p < kPoints; ++p)
            tile_for<PointProduct<T>>(count, size)(
                sums + p * apart, w + p * own,
                inputs + p * inputs_point + std::ptrdiff_t(groups.begin(group)) * channels, channels, false);
        for (int t = 0; t < count; ++t)
            for (int v = 0; v < size; ++v)
                outputs(tiles.place(groups.begin(group) + t), parts.begin(part) + v, sums + (t * size + v) * V, apart);
    }

    void outputs(const Tiling::Place& at, int v, const T* sums, std::ptrdiff_t apart) const {
        const Vector<T> bias = last.bias ? load(last.bias + v * V) : Vector<T>{};
        Vector<T> y[kOutputSide][kOutputSide];
        transform_output(y, sums, apart);
        for (int i = 0; i < std::min(kOutputSide, out.height - at.h); ++i) {
            const int block = at.block * vectors + v;
            T* const to = out.cell(block, 0, at.h + i) + at.w * V;
            const T* const gate = last.through ? last.through->cell(block, 0, at.h + i) + at.w * V : nullptr;
            for (int j = 0; j < std::min(kOutputSide, out.width - at.w); ++j)
                store(to + j * V, finished<T>(y[i][j] + bias, last.add, last.relu, to + j * V,
                                              gate ? gate + j * V : nullptr, [](const T* from) { return load(from); }));
        }
    }
};

// y = x ∗ w + bias, then perhaps ReLU
template <typename T>
void conv_by_channel(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const Finish<T> last{g.pad_h, g.pad_w, false, bias, relu, false, nullptr, nullptr};
    if (LaneWinograd<T>::serves(y, x, g) && LaneWinograd<T>{y, x, last}.run(w)) return;
    const int kernel = g.kernel_h * g.kernel_w, count = x.lane_channels * kernel;
    auto *cells = ByChannelMemory::memory<std::ptrdiff_t, kTaps>(count),
         *places = ByChannelMemory::memory<std::ptrdiff_t, kPlaces>(count);
    for (int c = 0, t = 0; c < x.lane_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j, ++t) {
                cells[t] = lane_of(x, c) + (i * g.dilation_h - g.pad_h) * x.row() +
                           std::ptrdiff_t(j * g.dilation_w - g.pad_w) * x.lanes;
                places[t] = t;
            }
    const LaneKernels<T> kernels(w, y.lane_channels, x.lane_channels, kernel, false);
    ByChannel<T>{y, x, kernels, last, {0, 0, 1, 1, y.height, y.width}, g.stride_h, g.stride_w, cells, places, count}
        .run();
}

// dx, or dx added to what is there; where `through` is the output of a ReLU, what flows back goes on through that.
template <typename T>
void input_gradient_by_channel(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                               bool add) {
    const Finish<T> last{2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr};
    const bool padded = g.pad_h <= 2 && g.pad_w <= 2;
    if (padded && LaneWinograd<T>::serves(dx, dy, g) && LaneWinograd<T>{dx, dy, last}.run(w)) return;
    const int kernel = g.kernel_h * g.kernel_w, filters = dy.lane_channels;
    auto *cells = ByChannelMemory::memory<std::ptrdiff_t, kTaps>(filters * kernel),
         *places = ByChannelMemory::memory<std::ptrdiff_t, kPlaces>(filters * kernel);
    const LaneKernels<T> kernels(w, filters, dx.lane_channels, kernel, true);
    for (int a = 0; a < std::min(g.stride_h, dx.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, dx.width); ++b) {
            const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
            const Phase columns(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            int t = 0;
            for (int f = 0; f < filters; ++f)
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j, ++t) {
                        cells[t] =
                            lane_of(dy, f) + rows.shift[i] * dy.row() + std::ptrdiff_t(columns.shift[j]) * dy.lanes;
                        places[t] = std::ptrdiff_t(f) * kernel + rows.cell[i] * g.kernel_w + columns.cell[j];
                    }
            const Cells phase{
                a, b, g.stride_h, g.stride_w, ceil_div(dx.height - a, g.stride_h), ceil_div(dx.width - b, g.stride_w)};
            ByChannel<T>{dx, dy, kernels, last, phase, 1, 1, cells, places, t}.run();
        }
}

// ---- weight gradient

// sum[k][f] += Σ dy[f] · x[tap k] over some rows of cells, for K taps and F vectors of filters
template <typename T>
struct LaneOuter {
    T* sums;  // (F, taps, lanes), from the first tap on
    std::ptrdiff_t sums_vector;
    const T* dy;
    std::ptrdiff_t dy_vector, dy_row, dy_cell;
    const T* x;
    std::ptrdiff_t x_row, x_cell;
    const std::ptrdiff_t* taps;  // (K)
    int rows, columns;
    bool resume;
};

template <typename T>
struct LaneOuterTile {
    template <int K, int F>
    static void run(const LaneOuter<T>& p) {
        using V = Vector<T>;
        V sum[K][F];
        for (int k = 0; k < K; ++k)
            for (int f = 0; f < F; ++f) sum[k][f] = p.resume ? load(p.sums + f * p.sums_vector + k * kWidth<T>) : V{};
        for (int h = 0; h < p.rows; ++h) {
            const T* dy = p.dy + h * p.dy_row;
            const T* x = p.x + h * p.x_row;
            for (int w = 0; w < p.columns; ++w, dy += p.dy_cell, x += p.x_cell) {
                V delta[F];
                for (int f = 0; f < F; ++f) delta[f] = load(dy + f * p.dy_vector);
                for (int k = 0; k < K; ++k) {
                    const V v = splat(x[p.taps[k]]);
                    for (int f = 0; f < F; ++f) sum[k][f] += v * delta[f];
                }
            }
        }
        for (int k = 0; k < K; ++k)
            for (int f = 0; f < F; ++f) store(p.sums + f * p.sums_vector + k * kWidth<T>, sum[k][f]);
    }
};

// dw (F, C, *K) of all samples, or (N, F, C, *K) sample by sample
template <typename T>
void weight_gradient_by_channel(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr int V = kWidth<T>;
    const int kernel = g.kernel_h * g.kernel_w, count = x.lane_channels * kernel, vectors = dy.blocks_of_sample();
    const int samples = dy.blocks() / vectors;
    auto* taps = ByChannelMemory::memory<std::ptrdiff_t, kTaps>(count);
    for (int c = 0, t = 0; c < x.lane_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j)
                taps[t++] = lane_of(x, c) + (i * g.dilation_h - g.pad_h) * x.row() +
                            std::ptrdiff_t(j * g.dilation_w - g.pad_w) * x.lanes;
    const EvenRanges filters(vectors, kTileColumns), ranges(count, kSumsAtOnce);
    const EvenRanges rows(dy.height, std::max(1, kDeltasAtOnce / dy.width));
    parallel(filters.count * ranges.count, double(dy.blocks()) * dy.height * dy.width * count, [&](int task) {
        const int tile = task % filters.count, range = task / filters.count;
        const int first = filters.begin(tile), size = filters.size(tile), own = ranges.size(range);
        const EvenRanges tiles(own, numbers_beside(size));
        T* const sums = ByChannelMemory::memory<T, kSums>(std::size_t(size) * own * V);
        for (int n = 0; n < samples; ++n) {
            for (int r = 0; r < rows.count; ++r)
                for (int i = 0; i < tiles.count; ++i) {
                    const int t = tiles.begin(i), k = tiles.size(i), h = rows.begin(r);
                    lane_tile<LaneOuterTile<T>>(
                        k, size)({sums + t * V, std::ptrdiff_t(own) * V, dy.cell(n * vectors + first, 0, h), dy.block(),
                                  dy.row(), dy.lanes, x.cell(n * x.blocks_of_sample(), 0, h * g.stride_h),
                                  g.stride_h * x.row(), std::ptrdiff_t(g.stride_w) * x.lanes,
                                  taps + ranges.begin(range) + t, rows.size(r), dy.width, r || (n && !by_sample)});
                }
            if (!by_sample && n < samples - 1) continue;
            T* const to = dw + (by_sample ? std::size_t(n) * dy.lane_channels * count : 0) + ranges.begin(range);
            for (int v = 0; v < size; ++v) {
                const int f = (first + v) * V, alive = std::min(V, dy.lane_channels - f);
                T* kernels[V];
                for (int l = 0; l < alive; ++l) kernels[l] = to + std::ptrdiff_t(f + l) * count;
                separate(kernels, sums + std::ptrdiff_t(v) * own * V, own, alive);
            }
        }
    });
}

// Each channel's sum over positions, of all samples (C) or sample by sample (N, C).
template <typename T>
void sums_of_channels(T* sums, const Map<T>& dy, bool by_sample) {
    if (!dy.by_channel()) return channel_sums(sums, dy, by_sample);
    const int channels = dy.lane_channels, rounded = dy.blocks_of_sample() * dy.lanes;
    T* const own = ByChannelMemory::memory<T, kWeights>(dy.samples);
    channel_sums(own, dy, true);
    for (int c = 0; c < channels; ++c) {
        double all = 0;
        for (int n = 0; n < dy.samples / rounded; ++n) {
            all += own[n * rounded + c];
            if (by_sample) sums[n * channels + c] = own[n * rounded + c];
        }
        if (!by_sample) sums[c] = T(all);
    }
}

}  // namespace
}  // namespace sharedgrad
