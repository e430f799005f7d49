// Convolution over maps in blocks: forward and input gradient. conv_gradient.hpp has the weight gradient.
//
// All are sums over taps t, with a tap an offset into a map with margins:
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]              t = (channel, kernel cell)
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]             t = (filter, kernel cell), those that meet phase i mod stride
//   dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t]   the lanes are the samples' own gradients until the end
#pragma once

#include "inner_loops.hpp"
#include "windows.hpp"

namespace sharedgrad {
namespace {

using ConvMemory = Owner<kWeights>;
static_assert(disjoint<WindowMemory, ConvMemory>());

// ---- forward and input gradient

// Chunks whose windows, in a tile of outputs for so many filters, fill the cache's share.
inline int chunk_of(int rows, int columns, int filters) {
    return std::max(1, kLines / std::max(1, rows * (columns + most_columns(std::min(filters, kTileFilters)) - 1)));
}

// A grid of outputs, `rows` rows of vectors for the filters of all groups and blocks, and what they see.
template <typename T>
struct Correlation {
    T* out;  // (blocks, channels, rows, columns, lanes)
    std::ptrdiff_t block, channel, row, step;
    int rows, columns;
    const Map<T>& in;
    int groups, filters;  // filters of one group
    const Taps& taps;
    const T* weights;  // (groups, tiles of filters, taps, filters of a tile)
    const T* bias;     // (groups · filters), or null
    bool add, relu;
    double operations;
};

// w (groups · filters, channels, cells) tile by tile: (tiles of filters, taps, filters of a tile). Groups, filters and
// taps lie so far apart in w.
template <typename T>
const T* packed(const T* w, const Taps& taps, int groups, const EvenRanges& tiles, std::ptrdiff_t group_step,
                std::ptrdiff_t filter_step) {
    const int count = taps.count(), filters = tiles.begin(tiles.count);
    T* weights = ConvMemory::memory<T, kWeights>(std::size_t(groups) * filters * count);
    parallel(groups * tiles.count, double(groups) * filters * count, [&](int task) {
        const int group = task / tiles.count, first = tiles.begin(task % tiles.count);
        const int size = tiles.size(task % tiles.count);
        const T* const from = w + group * group_step + first * filter_step;
        T* const to = weights + std::size_t(group * filters + first) * count;
        for (int f = 0; f < size; ++f)
            for (int t = 0; t < count; ++t) to[std::ptrdiff_t(t) * size + f] = from[f * filter_step + taps.places[t]];
    });
    return weights;
}

template <typename T>
struct CorrelateRange {
    static constexpr std::ptrdiff_t V = kWidth<T>;
    const Correlation<T>& p;
    const EvenRanges &tiles, &across;  // of filters; of a row's vectors
    int block, group;

    // What a chunk of channels adds to some vectors of row h, for a range of filter tiles.
    void run(int h, int i, int channel, int first_tile, int end_tile) const {
        const Taps& taps = p.taps;
        const auto& [rows, columns] = taps.view;
        const int v = across.begin(i), n = across.size(i);
        const auto [top, bottom] = rows.meeting(h, h);
        const auto [left, right] = columns.meeting(v, v + n - 1);
        const int together = taps.channels_from(channel), row = columns.count * together;
        const int start = channel * rows.count * columns.count + top * row + left * together;
        const int own = (right - left) * together, runs = own < row ? bottom - top : 1;
        const int count = own < row ? own : (bottom - top) * row;
        const T* from[kMostColumns];
        T* out[kMostColumns];
        from[0] = p.in.cell(block, group * taps.channels, h * rows.step) + v * columns.step * V;
        out[0] = p.out + block * p.block + h * p.row + v * p.step +
                 (group * p.filters + tiles.begin(first_tile)) * p.channel;
        for (int c = 1; c < n; ++c) from[c] = from[c - 1] + columns.step * V, out[c] = out[c - 1] + p.step;
        for (int t = first_tile; t < end_tile; ++t) {
            const int filter = group * p.filters + tiles.begin(t), size = tiles.size(t);
            const T* const w = p.weights + std::size_t(filter) * taps.count() + std::size_t(start) * size;
            tile_for<Correlate<T>, kTileFilters, kMostColumns>(
                size, n)({out, p.channel, from, taps.offsets + start, count, w, p.bias ? p.bias + filter : nullptr,
                          p.add || channel, p.relu && channel + taps.chunk >= taps.channels, runs, row});
            for (int c = 0; c < n; ++c) out[c] += size * p.channel;
        }
    }
};

template <typename T>
void correlate_all(const Correlation<T>& p) {
    const EvenRanges tiles(p.filters, kTileFilters), across(p.columns, most_columns(tiles.size(0)));
    const int pieces = p.rows * across.count, blocks = p.in.blocks();
    const EvenRanges ranges(pieces, ceil_div(pieces, ceil_div(kTasks, blocks * p.groups)));
    const int cuts = ceil_div(kTasks / 2, blocks * p.groups * ranges.count);
    const EvenRanges parts(tiles.count, ceil_div(tiles.count, cuts));
    parallel(blocks * p.groups * ranges.count * parts.count, p.operations, [&](int task) {
        const int part = task % parts.count, range = task / parts.count % ranges.count;
        const int group = task / parts.count / ranges.count % p.groups,
                  block = task / parts.count / ranges.count / p.groups;
        const CorrelateRange<T> own{p, tiles, across, block, group};
        for (int at = ranges.begin(range); at < ranges.begin(range + 1); ++at)
            for (int channel = 0; channel < p.taps.channels; channel += p.taps.chunk)
                own.run(at / across.count, at % across.count, channel, parts.begin(part), parts.begin(part + 1));
    });
}

// y (N, F, *P) = x (N, C, *S) ∗ w (F, C/groups, *K) + bias (F), then perhaps ReLU
template <typename T>
void conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const int filters = y.channels / g.groups, channels = x.channels / g.groups, kernel = g.kernel_h * g.kernel_w;
    const View view = view_of_inputs(x, g);
    const Taps taps = taps_of(x, view, channels, chunk_of(g.kernel_h, g.kernel_w, filters), kernel,
                              [&](int c) { return c * x.channel(); });
    const std::ptrdiff_t filter = std::ptrdiff_t(channels) * kernel;
    correlate_all<T>({y.cell(0, 0, 0), y.block(), y.channel(), y.row(), kWidth<T>, y.height, y.width, x, g.groups,
                      filters, taps, packed(w, taps, g.groups, {filters, kTileFilters}, filters * filter, filter), bias,
                      false, relu, operations(y, x, g)});
}

// dx (N, C, *S) from dy (N, F, *P) and w (F, C/groups, *K), or added to what dx holds.
template <typename T>
void conv_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Window& g, bool add) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const int channels = dx.channels / g.groups, filters = dy.channels / g.groups;
    const std::ptrdiff_t kernel = g.kernel_h * g.kernel_w, filter = channels * kernel;
    each_slide(dx, dy, g, true, [&](const Slide& at) {
        const int rows = at.view.rows.count, columns = at.view.columns.count;
        if (add && !(rows && columns)) return;
        const Taps taps = taps_of(dy, at.view, filters, chunk_of(rows, columns, channels), filter,
                                  [&](int f) { return f * dy.channel(); });
        const T* const weights = packed(w, taps, g.groups, {channels, kTileFilters}, filters * filter, kernel);
        correlate_all<T>({dx.cell(0, 0, at.top) + at.left * V, dx.block(), dx.channel(), at.down * dx.row(),
                          at.across * V, at.rows, at.columns, dy, g.groups, channels, taps, weights, nullptr, add,
                          false, operations(dy, dx, g) / at.down / at.across});
    });
}

}  // namespace
}  // namespace sharedgrad
