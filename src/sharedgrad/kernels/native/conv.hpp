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

// y (N, F, *P) = x (N, C, *S) ∗ w (F, C/groups, *K) + bias (F), or back, dx from dy; perhaps added to what is there,
// then perhaps ReLU
template <typename T>
void conv_outputs(const Map<T>& out, const Map<T>& in, const T* w, const T* bias, const Window& g, bool back, bool add,
                  bool relu) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const int own = out.channels / g.groups, other = in.channels / g.groups, kernel = g.kernel_h * g.kernel_w;
    const std::ptrdiff_t filter = std::ptrdiff_t(back ? own : other) * kernel;
    each_slide(out, in, g, back, [&](const Slide& at) {
        const int rows = at.view.rows.count, columns = at.view.columns.count;
        if (add && !(rows && columns)) return;
        const Taps taps = taps_of(in, at.view, other, chunk_of(rows, columns, own), back ? filter : kernel,
                                  [&](int c) { return c * in.channel(); });
        const T* const weights = packed(w, taps, g.groups, {own, kTileFilters}, std::ptrdiff_t(own) * other * kernel,
                                        back ? kernel : filter);
        correlate_all<T>({out.cell(0, 0, at.top) + at.left * V, out.block(), out.channel(), at.down * out.row(),
                          at.across * V, at.rows, at.columns, in, g.groups, own, taps, weights, bias, add, relu,
                          operations(back ? in : out, back ? out : in, g) / at.down / at.across});
    });
}

}  // namespace
}  // namespace sharedgrad
