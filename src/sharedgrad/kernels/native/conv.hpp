// Convolution with samples in the lanes of a vector: whatever the number of channels, every lane works.
//
// All three passes are sums over taps t, with a tap an offset into a padded, interleaved map:
//   forward   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]          t = (channel, kernel cell)
//   backward  dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]         t = (filter, kernel cell), those that meet phase i mod
//   stride weights   dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t]   the lanes are the samples' own gradients until
//   the end
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "pack.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

enum Slot { kBlocks, kDeltas, kWeights, kTaps, kZeros, kRows, kSums };

template <typename T>
T* memory(Slot slot, std::size_t elements) {
    return static_cast<T*>(scratch(slot, elements * sizeof(T)));
}

constexpr int kTasks = 16;  // enough for the threads to share evenly, few enough to keep rows together

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Multiplications of one pass, a vector's worth counted as one.
double operations(const Geometry& g) {
    return double(g.samples) * g.filters * g.out_h * g.out_w * (g.channels / g.groups) * g.kernel_h * g.kernel_w / 8;
}

// ---- maps in blocks

// A map (N, C, H, W) interleaved into blocks, with zeros around it.
template <typename T>
struct Blocks {
    T* data;
    int channels, height, width;  // with the margins
    std::ptrdiff_t row() const { return std::ptrdiff_t(width) * kLanes<T>; }
    std::ptrdiff_t channel() const { return row() * height; }
    std::ptrdiff_t block() const { return channel() * channels; }
};

struct Margins {
    int top, bottom, left, right;
};

template <typename T>
Blocks<T> interleaved(Slot slot, const T* x, int samples, int channels, int height, int width, Margins m) {
    constexpr int L = kLanes<T>;
    const int blocks = ceil_div(samples, L);
    Blocks<T> b{nullptr, channels, height + m.top + m.bottom, width + m.left + m.right};
    b.data = memory<T>(slot, blocks * b.block());
    T* zeros = memory<T>(kZeros, width);
    std::fill_n(zeros, width, T(0));
    parallel(blocks * channels, double(samples) * channels * height * width, [=](int task) {
        const int first = task / channels * L, c = task % channels;
        T* map = b.data + task * b.channel();
        std::fill_n(map, m.top * b.row(), T(0));
        for (int h = 0; h < height; ++h) {
            const T* from[L];
            for (int l = 0; l < L; ++l) {
                const std::ptrdiff_t sample = first + l;
                from[l] = sample < samples ? x + ((sample * channels + c) * height + h) * width : zeros;
            }
            T* row = map + (m.top + h) * b.row();
            std::fill_n(row, m.left * L, T(0));
            interleave(row + m.left * L, from, width);
            std::fill_n(row + (m.left + width) * L, m.right * L, T(0));
        }
        std::fill_n(map + (m.top + height) * b.row(), m.bottom * b.row(), T(0));
    });
    return b;
}

// The input with all the zeros around it that windows reach.
template <typename T>
Blocks<T> padded_input(const T* x, const Geometry& g) {
    const auto after = [](int out, int stride, int kernel, int dilation, int pad, int size) {
        return std::max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - pad - size);
    };
    const int bottom = after(g.out_h, g.stride_h, g.kernel_h, g.dilation_h, g.pad_h, g.height);
    const int right = after(g.out_w, g.stride_w, g.kernel_w, g.dilation_w, g.pad_w, g.width);
    return interleaved(kBlocks, x, g.samples, g.channels, g.height, g.width, {g.pad_h, bottom, g.pad_w, right});
}

// Where each weight of a filter meets its window, seen from the window's first cell.
template <typename T>
const std::ptrdiff_t* input_taps(const Blocks<T>& in, const Geometry& g) {
    const int group_channels = g.channels / g.groups;
    auto* taps = memory<std::ptrdiff_t>(kTaps, std::size_t(group_channels) * g.kernel_h * g.kernel_w);
    for (int c = 0, t = 0; c < group_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j, ++t)
                taps[t] = c * in.channel() + i * g.dilation_h * in.row() + std::ptrdiff_t(j) * g.dilation_w * kLanes<T>;
    return taps;
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
    const int pieces = ceil_div(columns, most_columns(filters));
    for (int piece = 0; piece < pieces; ++piece) {  // as even as possible: 7 columns are 4 + 3
        const int begin = columns * piece / pieces, n = columns * (piece + 1) / pieces - begin;
        tile<T>(filters, n)(out + begin * out_step, out_channel, out_step, x + begin * x_step, x_step, taps, count, w,
                            bias);
    }
}

// Write a row of a tile of channels, interleaved, to the samples' own maps.
template <typename T>
void separate_row(T* y, const T* row, int first, int samples, int channels, int channel, int filters, int height, int h,
                  int width) {
    constexpr int L = kLanes<T>;
    const int lanes = std::min(L, samples - first);
    for (int f = 0; f < filters; ++f) {
        T* to[L];
        for (int l = 0; l < lanes; ++l)
            to[l] = y + ((std::ptrdiff_t(first + l) * channels + channel + f) * height + h) * width;
        separate(to, row + std::ptrdiff_t(f) * width * L, width, lanes);
    }
}

// Channels cut into tiles as even as possible.
struct Tiles {
    int total, count;
    explicit Tiles(int channels, int most) : total(channels), count(ceil_div(channels, most)) {}
    int begin(int i) const { return total * i / count; }
    int size(int i) const { return begin(i + 1) - begin(i); }
    int of(int channel) const { return ((channel + 1) * count - 1) / total; }  // the tile that it lies in
};

template <typename T>
void conv(T* y, const T* x, const T* w, const T* bias, const Geometry& g) {
    constexpr int L = kLanes<T>;
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    const auto in = padded_input(x, g);

    const int count = group_channels * g.kernel_h * g.kernel_w;
    const auto* taps = input_taps(in, g);

    const Tiles tiles(group_filters, kTileFilters);
    T* weights = memory<T>(kWeights, std::size_t(g.filters) * count);  // tile by tile: [tap][filter]
    for (int group = 0; group < g.groups; ++group)
        for (int i = 0; i < tiles.count; ++i) {
            const int first = group * group_filters + tiles.begin(i), n = tiles.size(i);
            T* to = weights + std::size_t(first) * count;
            for (int t = 0; t < count; ++t)
                for (int f = 0; f < n; ++f) to[t * n + f] = w[std::size_t(first + f) * count + t];
        }

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

template <typename T>
void conv_input_gradient(T* dx, const T* dy, const T* w, const Geometry& g) {
    constexpr int L = kLanes<T>;
    const int group_channels = g.channels / g.groups, group_filters = g.filters / g.groups;
    const int cells = g.kernel_h * g.kernel_w;
    Margins m;
    reach(m.top, m.bottom, g.height, g.out_h, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
    reach(m.left, m.right, g.width, g.out_w, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
    const auto in = interleaved(kDeltas, dy, g.samples, g.filters, g.out_h, g.out_w, m);

    // For each phase of rows and columns its own taps and weights, tile by tile: [tap][channel].
    const int phases_h = std::min(g.stride_h, g.height), phases_w = std::min(g.stride_w, g.width);
    const Tiles tiles(group_channels, kTileFilters);
    const std::size_t most = std::size_t(group_filters) * cells;
    auto* taps = memory<std::ptrdiff_t>(kTaps, phases_h * phases_w * most);
    T* weights = memory<T>(kWeights, phases_h * phases_w * g.channels * most);
    auto* counts = memory<int>(kSums, phases_h * phases_w);
    const auto place = [&](std::size_t phase, int t, int f, int cell) {  // weights of one tap, for all channels
        for (int c = 0; c < g.channels; ++c) {
            const int group = c / group_channels, own = c % group_channels, k = tiles.of(own), begin = tiles.begin(k);
            T* tile = weights + (phase * g.channels + group * group_channels + begin) * most;
            const std::size_t filter = group * group_filters + f;
            tile[t * tiles.size(k) + own - begin] = w[(filter * group_channels + own) * cells + cell];
        }
    };
    for (int a = 0; a < phases_h; ++a)
        for (int b = 0; b < phases_w; ++b) {
            const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
            const Phase columns(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            const std::size_t phase = a * phases_w + b;
            int t = 0;
            for (int f = 0; f < group_filters; ++f)
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j, ++t) {
                        taps[phase * most + t] =
                            f * in.channel() + rows.shift[i] * in.row() + std::ptrdiff_t(columns.shift[j]) * L;
                        place(phase, t, f, rows.cell[i] * g.kernel_w + columns.cell[j]);
                    }
            counts[phase] = t;
        }

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
                    const std::size_t phase = a * phases_w + b;
                    correlate_row<T>(row + b * L, std::ptrdiff_t(g.width) * L, std::ptrdiff_t(g.stride_w) * L, n,
                                     ceil_div(g.width - b, g.stride_w), origin, L, taps + phase * most, counts[phase],
                                     weights + (phase * g.channels + first) * most, nullptr);
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
