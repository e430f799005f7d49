// Convolution with samples in the lanes of a vector: whatever the number of channels, every lane works.
//
// All three passes are sums over taps t, with a tap an offset into a padded, interleaved map:
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]              t = (channel, kernel cell)
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]             t = (filter, kernel cell), those that meet phase i mod stride
//   dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t]   the lanes are the samples' own gradients until the end
#pragma once

#include <algorithm>

#include "blocks.hpp"

namespace sharedgrad {
namespace {

constexpr int kTasks = 16;  // enough for the threads to share evenly, few enough to keep rows together

// Multiplications of one pass, a vector's worth counted as one.
double operations(const Geometry& g) {
    return double(g.samples) * g.filters * g.out_h * g.out_w * (g.channels / g.groups) * g.kernel_h * g.kernel_w / 8;
}

// ---- forward and input gradient: a tile of output channels × columns stays in registers over all taps

constexpr int kMostColumns = 8;
constexpr int kAccumulators = kTileFilters * kTileColumns;

template <typename T, int F, int C>
void correlate(T* out, std::ptrdiff_t out_channel, std::ptrdiff_t out_column, const T* x, std::ptrdiff_t x_column,
               const std::ptrdiff_t* taps, int count, const T* w, const T* bias) {
    using V = Vector<T>;
    for (int part = 0; part < kLanes<T>; part += kWidth<T>) {
        V sum[F][C];
        for (int f = 0; f < F; ++f)
            for (int c = 0; c < C; ++c) sum[f][c] = splat(bias ? bias[f] : T(0));
        for (int t = 0; t < count; ++t) {
            V v[C];
            for (int c = 0; c < C; ++c) v[c] = load(x + taps[t] + c * x_column + part);
            for (int f = 0; f < F; ++f) {
                const V weight = splat(w[t * F + f]);
                for (int c = 0; c < C; ++c) sum[f][c] += weight * v[c];
            }
        }
        for (int f = 0; f < F; ++f)
            for (int c = 0; c < C; ++c) store(out + f * out_channel + c * out_column + part, sum[f][c]);
    }
}

template <typename T>
using Correlate = void (*)(T*, std::ptrdiff_t, std::ptrdiff_t, const T*, std::ptrdiff_t, const std::ptrdiff_t*, int,
                           const T*, const T*);

constexpr int most_columns(int filters) { return std::min(kMostColumns, kAccumulators / filters); }

template <typename T, int F, int C>
constexpr Correlate<T> tile_or_null() {
    if constexpr (C <= most_columns(F))
        return correlate<T, F, C>;
    else
        return nullptr;
}

template <typename T, int F>
constexpr Correlate<T> kColumns[] = {
    nullptr,
    tile_or_null<T, F, 1>(),
    tile_or_null<T, F, 2>(),
    tile_or_null<T, F, 3>(),
    tile_or_null<T, F, 4>(),
    tile_or_null<T, F, 5>(),
    tile_or_null<T, F, 6>(),
    tile_or_null<T, F, 7>(),
    tile_or_null<T, F, 8>(),
};

template <typename T>
Correlate<T> tile(int filters, int columns) {
    switch (filters) {
        case 1:
            return kColumns<T, 1>[columns];
        case 2:
            return kColumns<T, 2>[columns];
        case 3:
            return kColumns<T, 3>[columns];
        case 4:
            return kColumns<T, 4>[columns];
#if defined(__AVX512F__)
        case 5:
            return kColumns<T, 5>[columns];
        case 6:
            return kColumns<T, 6>[columns];
#endif
    }
    return nullptr;
}

// One row of outputs for a tile of channels: out[f][column · out_step], from x[column · x_step + taps].
template <typename T>
void correlate_row(T* out, std::ptrdiff_t out_channel, std::ptrdiff_t out_step, int filters, int columns, const T* x,
                   std::ptrdiff_t x_step, const std::ptrdiff_t* taps, int count, const T* w, const T* bias) {
    const Tiles pieces(columns, most_columns(filters));
    for (int i = 0; i < pieces.count; ++i)
        tile<T>(filters, pieces.size(i))(out + pieces.begin(i) * out_step, out_channel, out_step,
                                         x + pieces.begin(i) * x_step, x_step, taps, count, w, bias);
}

// The weights tile by tile: [tap][filter].
template <typename T>
const T* tiled(const T* w, const Geometry& g, const Tiles& tiles, int count) {
    T* weights = memory<T>(kWeights, std::size_t(g.filters) * count);
    for (int group = 0; group < g.groups; ++group)
        for (int i = 0; i < tiles.count; ++i) {
            const std::size_t first = group * (g.filters / g.groups) + tiles.begin(i);
            const int n = tiles.size(i);
            T* to = weights + first * count;
            for (int t = 0; t < count; ++t)
                for (int f = 0; f < n; ++f) to[t * n + f] = w[(first + f) * count + t];
        }
    return weights;
}

template <typename T>
void conv(T* y, const T* x, const T* w, const T* bias, const Geometry& g) {
    constexpr int L = kLanes<T>;
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    const auto in = padded_input(x, g);

    const int count = group_channels * g.kernel_h * g.kernel_w;
    const auto* taps = input_taps(in, g);

    const Tiles tiles(group_filters, kTileFilters);
    const T* weights = tiled(w, g, tiles, count);

    const int blocks = ceil_div(g.samples, L);
    const Tiles ranges(g.out_h, ceil_div(g.out_h, ceil_div(kTasks, blocks * g.groups)));
    parallel(blocks * g.groups * ranges.count, operations(g), [&](int task) {
        const int range = task % ranges.count, group = task / ranges.count % g.groups,
                  block = task / ranges.count / g.groups;
        T* row = memory<T>(kRows, std::size_t(kTileFilters) * g.out_w * L);
        const T* from = in.data + block * in.block() + group * group_channels * in.channel();
        for (int h = ranges.begin(range); h < ranges.begin(range + 1); ++h)
            for (int i = 0; i < tiles.count; ++i) {
                const int first = group * group_filters + tiles.begin(i), n = tiles.size(i);
                correlate_row(row, std::ptrdiff_t(g.out_w) * L, L, n, g.out_w, from + h * g.stride_h * in.row(),
                              std::ptrdiff_t(g.stride_w) * L, taps, count, weights + std::size_t(first) * count,
                              bias ? bias + first : nullptr);
                separate_row(y, row, block * L, g.samples, g.filters, first, n, g.out_h, h, g.out_w);
            }
    });
}

constexpr int kMostCells = 64;  // along one axis; native/__init__.py lets NumPy have larger kernels

// The kernel cells along one axis that inputs i ≡ phase (mod stride) meet, and where: output i/stride + shift.
struct Phase {
    int count = 0;
    int cell[kMostCells], shift[kMostCells];
    Phase(int phase, int kernel, int stride, int pad, int dilation) {
        for (int k = 0; k < kernel; ++k) {
            const int at = phase + pad - k * dilation;
            if (((at % stride) + stride) % stride) continue;
            cell[count] = k;
            shift[count++] = (at - ((at % stride) + stride) % stride) / stride;
        }
    }
};

// How far outputs before 0 and after the last are read, over all phases of one axis.
void reach(int& before, int& after, int size, int out, int kernel, int stride, int pad, int dilation) {
    before = after = 0;
    for (int phase = 0; phase < std::min(stride, size); ++phase) {
        const Phase p(phase, kernel, stride, pad, dilation);
        const int last = (size - 1 - phase) / stride;
        for (int i = 0; i < p.count; ++i) {
            before = std::max(before, -p.shift[i]);
            after = std::max(after, last + p.shift[i] - (out - 1));
        }
    }
}

// Taps and weights of every phase of rows and columns, one phase after the other; each kernel cell is in one of them.
template <typename T>
struct Phases {
    const int* start;  // of a phase's taps; the next one's start is their end
    const std::ptrdiff_t* taps;
    const T* weights;  // tile by tile: [tap][channel]
};

template <typename T>
Phases<T> phases(const T* w, const Blocks<T>& dy, const Geometry& g, const Tiles& tiles) {
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    const int cells = g.kernel_h * g.kernel_w;
    const int phases_h = std::min(g.stride_h, g.height), phases_w = std::min(g.stride_w, g.width);
    const std::size_t all = std::size_t(group_filters) * cells;
    int* start = memory<int>(kStarts, std::size_t(phases_h) * phases_w + 1);
    auto* taps = memory<std::ptrdiff_t>(kTaps, all);
    T* weights = memory<T>(kWeights, all * g.channels);
    *start = 0;
    for (int a = 0; a < phases_h; ++a) {
        const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
        for (int b = 0; b < phases_w; ++b, ++start) {
            const Phase columns(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            const int count = group_filters * rows.count * columns.count;
            const auto place = [&](int t, int f, int cell) {  // weights of one tap, for all channels
                for (int c = 0; c < g.channels; ++c) {
                    const int group = c / group_channels, own = c % group_channels, tile = tiles.of(own);
                    const std::size_t first = group * group_channels + tiles.begin(tile);
                    const std::size_t filter = group * group_filters + f;
                    T* to = weights + std::size_t(*start) * g.channels + first * count;
                    to[t * tiles.size(tile) + own - tiles.begin(tile)] =
                        w[(filter * group_channels + own) * cells + cell];
                }
            };
            int t = 0;
            for (int f = 0; f < group_filters; ++f)
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j, ++t) {
                        taps[*start + t] =
                            f * dy.channel() + rows.shift[i] * dy.row() + std::ptrdiff_t(columns.shift[j]) * kLanes<T>;
                        place(t, f, rows.cell[i] * g.kernel_w + columns.cell[j]);
                    }
            start[1] = *start + count;
        }
    }
    return {start - std::ptrdiff_t(phases_h) * phases_w, taps, weights};
}

template <typename T>
void conv_input_gradient(T* dx, const T* dy, const T* w, const Geometry& g) {
    constexpr int L = kLanes<T>;
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    Margins m;
    reach(m.top, m.bottom, g.height, g.out_h, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
    reach(m.left, m.right, g.width, g.out_w, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
    const auto in = interleaved(kDeltas, dy, g.samples, g.filters, g.out_h, g.out_w, m);

    const Tiles tiles(group_channels, kTileFilters);
    const auto all = phases(w, in, g, tiles);
    const int phases_w = std::min(g.stride_w, g.width);

    const int blocks = ceil_div(g.samples, L);
    const Tiles ranges(g.height, ceil_div(g.height, ceil_div(kTasks, blocks * g.groups)));
    parallel(blocks * g.groups * ranges.count, operations(g), [&](int task) {
        const int range = task % ranges.count, group = task / ranges.count % g.groups,
                  block = task / ranges.count / g.groups;
        T* row = memory<T>(kRows, std::size_t(kTileFilters) * g.width * L);
        const T* from = in.data + block * in.block() + group * group_filters * in.channel();
        for (int h = ranges.begin(range); h < ranges.begin(range + 1); ++h)
            for (int i = 0; i < tiles.count; ++i) {
                const int first = group * group_channels + tiles.begin(i), n = tiles.size(i), a = h % g.stride_h;
                const T* origin = from + (h / g.stride_h + m.top) * in.row() + std::ptrdiff_t(m.left) * L;
                for (int b = 0; b < phases_w; ++b) {
                    const int phase = a * phases_w + b, start = all.start[phase], count = all.start[phase + 1] - start;
                    correlate_row<T>(row + b * L, std::ptrdiff_t(g.width) * L, std::ptrdiff_t(g.stride_w) * L, n,
                                     ceil_div(g.width - b, g.stride_w), origin, L, all.taps + start, count,
                                     all.weights + std::size_t(start) * g.channels + std::size_t(first) * count,
                                     nullptr);
                }
                separate_row(dx, row, block * L, g.samples, g.channels, first, n, g.height, h, g.width);
            }
    });
}

// ---- weight gradient: a tile of deltas × taps stays in registers over a chunk of positions

constexpr int kChunk = 96;  // positions, so that a tile's deltas stay in the first-level cache for all taps

template <typename T, int F, int K>
void outer(T* sums, const T* dy, std::ptrdiff_t dy_channel, std::ptrdiff_t dy_row, const T* x, std::ptrdiff_t x_column,
           std::ptrdiff_t x_row, const std::ptrdiff_t* taps, int rows, int columns) {
    using V = Vector<T>;
    for (int part = 0; part < kLanes<T>; part += kWidth<T>) {
        V sum[F][K];
        const T* tap[K];
        for (int k = 0; k < K; ++k) tap[k] = x + taps[k] + part;
        for (int f = 0; f < F; ++f)
            for (int k = 0; k < K; ++k) sum[f][k] = load(sums + (f * K + k) * kLanes<T> + part);
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c) {
                V delta[F];
                for (int f = 0; f < F; ++f) delta[f] = load(dy + f * dy_channel + r * dy_row + c * kLanes<T> + part);
                for (int k = 0; k < K; ++k) {
                    const V v = load(tap[k] + r * x_row + c * x_column);
                    for (int f = 0; f < F; ++f) sum[f][k] += delta[f] * v;
                }
            }
        for (int f = 0; f < F; ++f)
            for (int k = 0; k < K; ++k) store(sums + (f * K + k) * kLanes<T> + part, sum[f][k]);
    }
}

template <typename T>
using Outer = void (*)(T*, const T*, std::ptrdiff_t, std::ptrdiff_t, const T*, std::ptrdiff_t, std::ptrdiff_t,
                       const std::ptrdiff_t*, int, int);

template <typename T, int F>
constexpr Outer<T> kOuter[] = {
    nullptr,        outer<T, F, 1>, outer<T, F, 2>, outer<T, F, 3>,
#if defined(__AVX512F__)
    outer<T, F, 4>, outer<T, F, 5>, outer<T, F, 6>,
#endif
};

template <typename T>
Outer<T> outer_tile(int deltas, int taps) {
    switch (deltas) {
        case 1:
            return kOuter<T, 1>[taps];
        case 2:
            return kOuter<T, 2>[taps];
        case 3:
            return kOuter<T, 3>[taps];
        default:
            return kOuter<T, 4>[taps];
    }
}

template <typename T>
void conv_kernel_gradient(T* dw, const T* dy, const T* x, const Geometry& g, bool by_sample) {
    constexpr int L = kLanes<T>;
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    const auto in = padded_input(x, g);
    const auto delta = interleaved(kDeltas, dy, g.samples, g.filters, g.out_h, g.out_w, {0, 0, 0, 0});

    const int count = group_channels * g.kernel_h * g.kernel_w;
    const auto* taps = input_taps(in, g);

    const Tiles filters(group_filters, kTileDeltas), tap_tiles(count, kTileTaps);
    const Tiles ranges(tap_tiles.count, ceil_div(tap_tiles.count, std::max(1, ceil_div(8, g.groups))));
    const int blocks = ceil_div(g.samples, L), rows = std::max(1, kChunk / g.out_w);
    parallel(g.groups * ranges.count, operations(g), [&](int task) {
        const int range = task % ranges.count, group = task / ranges.count;
        const int begin = ranges.begin(range), end = begin + ranges.size(range);
        const int first = tap_tiles.begin(begin), own = tap_tiles.begin(end) - first;
        const std::size_t size = std::size_t(group_filters) * own * L;
        T* sums = memory<T>(kSums, size);  // tile by tile: [filter][tap][lane]
        std::fill_n(sums, size, T(0));
        const auto tile = [&](int i, int k) {
            return sums + (std::size_t(filters.begin(i)) * own + filters.size(i) * (tap_tiles.begin(k) - first)) * L;
        };
        const auto finish = [&](int block) {  // the lanes are samples: store them apart, or add them
            for (int i = 0; i < filters.count; ++i)
                for (int k = begin; k < end; ++k)
                    for (int f = 0; f < filters.size(i); ++f)
                        for (int t = 0; t < tap_tiles.size(k); ++t) {
                            const T* lanes = tile(i, k) + (f * tap_tiles.size(k) + t) * L;
                            const std::size_t filter = group * group_filters + filters.begin(i) + f;
                            const std::size_t to = filter * count + tap_tiles.begin(k) + t;
                            if (by_sample) {
                                for (int l = 0; l < std::min(L, g.samples - block * L); ++l)
                                    dw[std::size_t(block * L + l) * g.filters * count + to] = lanes[l];
                            } else {
                                dw[to] = 0;
                                for (int l = 0; l < L; ++l) dw[to] += lanes[l];
                            }
                        }
        };
        for (int block = 0; block < blocks; ++block) {
            const T* dy_block = delta.data + block * delta.block() + group * group_filters * delta.channel();
            const T* x_block = in.data + block * in.block() + group * group_channels * in.channel();
            for (int h = 0; h < g.out_h; h += rows)
                for (int i = 0; i < filters.count; ++i)
                    for (int k = begin; k < end; ++k)
                        outer_tile<T>(filters.size(i), tap_tiles.size(k))(
                            tile(i, k), dy_block + filters.begin(i) * delta.channel() + h * delta.row(),
                            delta.channel(), delta.row(), x_block + std::ptrdiff_t(h) * g.stride_h * in.row(),
                            std::ptrdiff_t(g.stride_w) * L, g.stride_h * in.row(), taps + tap_tiles.begin(k),
                            std::min(rows, g.out_h - h), g.out_w);
            if (by_sample) {
                finish(block);
                std::fill_n(sums, size, T(0));
            }
        }
        if (!by_sample) finish(0);
    });
}

}  // namespace
}  // namespace sharedgrad
