// Convolution over maps in blocks: forward and input gradient. conv_gradient.hpp has the weight gradient.
//
// All are sums over taps t, with a tap an offset into a map with margins:
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]              t = (channel, kernel cell)
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]             t = (filter, kernel cell), those that meet phase i mod stride
//   dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t]   the lanes are the samples' own gradients until the end
#pragma once

#include <utility>

#include "inner_loops.hpp"
#include "windows.hpp"

namespace sharedgrad {
namespace {

using ConvMemory = Owner<kOrder, kPlaces, kWeights>;
static_assert(disjoint<WindowMemory, ConvMemory>());

// ---- forward and input gradient

// A grid of outputs: `rows` rows of vectors, for the filters of all groups and blocks.
template <typename T>
struct Grid {
    T* data;  // (blocks, channels, rows, columns, lanes)
    std::ptrdiff_t block, channel, row, step;
    int rows, columns;
};

// The taps of one output. So many channels at a time as the cache holds, kernel row by kernel row, so that outputs near
// a border leave out the rows of the kernel that lie in the margin: [chunk of channels][row][channel][column].
struct Taps {
    int channels, rows, columns, chunk;
    const std::ptrdiff_t *offsets, *places;  // (count()): of each tap, in the input and in the weights
    int stride, height;                      // kernel row i of output row h meets input row h·stride + shifts[i]
    const int* shifts;                       // (rows)

    int count() const { return channels * rows * columns; }
    int channels_from(int c) const { return std::min(chunk, channels - c); }

    // The kernel rows that meet the input from one of these output rows on to another: [first, last).
    std::pair<int, int> meeting(int from, int to) const {
        const auto meets = [&](int i) { return to * stride + shifts[i] >= 0 && from * stride + shifts[i] < height; };
        int first = 0, last = rows;
        while (first < last && !meets(first)) ++first;
        while (first < last && !meets(last - 1)) --last;
        return {first, last};
    }
};

// Chunks whose windows, in a tile of outputs for so many filters, fill the cache's share.
inline int chunk_of(int rows, int columns, int filters) {
    return std::max(1, kLines / std::max(1, rows * (columns + most_columns(std::min(filters, kTileFilters)) - 1)));
}

// offset(channel, row, column) and place(channel, row, column) of all taps in their order
template <typename Offset, typename Place>
Taps ordered(Taps taps, const Offset& offset, const Place& place) {
    auto* offsets = ConvMemory::memory<std::ptrdiff_t, kOrder>(taps.count());
    auto* places = ConvMemory::memory<std::ptrdiff_t, kPlaces>(taps.count());
    taps.offsets = offsets;
    taps.places = places;
    for (int first = 0; first < taps.channels; first += taps.chunk)
        for (int i = 0; i < taps.rows; ++i)
            for (int c = first; c < first + taps.channels_from(first); ++c)
                for (int j = 0; j < taps.columns; ++j) {
                    *offsets++ = offset(c, i, j);
                    *places++ = place(c, i, j);
                }
    return taps;
}

template <typename T>
struct Correlation {
    Grid<T> out;
    const T* x;  // (blocks, groups · channels, rows, …) from the first window's first row on
    std::ptrdiff_t x_block, x_group, x_row, x_step;
    int blocks, groups, filters;  // filters of one group
    const Taps& taps;
    int leading;       // which column of a kernel row is the first to see new input
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

// A task's share of the outputs: a range of vectors for a range of filter tiles.
template <typename T>
struct CorrelateRange {
    const Correlation<T>& p;
    const EvenRanges& tiles;
    int block, group, first_tile, end_tile;
    int most = most_columns(tiles.size(0));
    int first_filter = tiles.begin(first_tile);
    T* y = p.out.data + block * p.out.block + (std::ptrdiff_t(group) * p.filters + first_filter) * p.out.channel;
    const T* x = p.x + block * p.x_block + group * p.x_group;

    // Where some vectors of outputs are, and what they read.
    struct Places {
        T* out[kMostColumns];
        const T* from[kMostColumns];
        int count, first_row, last_row;
    };

    void place(Places& to, int first, int end) const {
        to.count = std::max(0, std::min(most, end - first));
        int h = first / p.out.columns, v = first % p.out.columns;
        to.first_row = to.last_row = h;
        for (int c = 0; c < to.count; ++c, ++v) {
            if (v == p.out.columns) v = 0, ++h;
            to.last_row = h;
            to.out[c] = y + h * p.out.row + v * p.out.step;
            to.from[c] = x + h * p.x_row + v * p.x_step;
        }
    }

    void run(int first, int end) const {
        Places places[2];
        place(places[0], first, end);
        for (int at = first, i = 0; at < end; at += most, i ^= 1) {
            place(places[i ^ 1], at + most, end);
            for (int channel = 0; channel < p.taps.channels; channel += p.taps.chunk)
                chunk(places[i], places[i ^ 1], channel);
        }
    }

    void chunk(const Places& own, const Places& next, int channel) const {
        const Taps& taps = p.taps;
        const auto rows = taps.meeting(own.first_row, own.last_row);
        const int row = taps.channels_from(channel) * taps.columns;  // taps of one kernel row
        const int start = channel * taps.rows * taps.columns + rows.first * row;
        const int count = (rows.second - rows.first) * row;
        const bool last_chunk = channel + taps.chunk >= taps.channels;
        for (int i = first_tile; i < end_tile; ++i) {
            const int f = tiles.begin(i) - first_filter, size = tiles.size(i);
            const int filter = group * p.filters + tiles.begin(i);
            fetch(next, i, start, count, !channel);
            const T* w = p.weights + std::size_t(filter) * taps.count() + std::size_t(start) * size;
            T* out[kMostColumns];
            for (int c = 0; c < own.count; ++c) out[c] = own.out[c] + f * p.out.channel;
            correlate<T>(size, own.count,
                         {out, p.out.channel, own.from, taps.offsets + start, count, w,
                          p.bias ? p.bias + filter : nullptr, p.add || channel, p.relu && last_chunk});
        }
    }

    // Into the cache: this tile's share of what the next vectors read, and where they go.
    void fetch(const Places& next, int tile, int start, int count, bool out) const {
        const int lines = count / std::max(1, p.taps.columns), shares = end_tile - first_tile;
        const int share = tile - first_tile;
        for (int r = lines * share / shares; r < lines * (share + 1) / shares; ++r)
            for (int c = 0; c < next.count; ++c)
                __builtin_prefetch(next.from[c] + p.taps.offsets[start + r * p.taps.columns + p.leading]);
        if (!out) return;
        for (int f = tiles.begin(tile); f < tiles.begin(tile + 1); ++f)
            for (int c = 0; c < next.count; ++c)
                __builtin_prefetch(next.out[c] + (f - first_filter) * p.out.channel, 1);
    }
};

template <typename T>
void correlate_all(const Correlation<T>& p) {
    const EvenRanges tiles(p.filters, kTileFilters);
    const int vectors = p.out.rows * p.out.columns;
    const int unit = most_columns(tiles.size(0)), pieces = ceil_div(vectors, unit);
    const EvenRanges ranges(pieces, ceil_div(pieces, ceil_div(kTasks, p.blocks * p.groups)));
    const int cuts = ceil_div(kTasks / 2, p.blocks * p.groups * ranges.count);
    const EvenRanges parts(tiles.count, ceil_div(tiles.count, cuts));
    parallel(p.blocks * p.groups * ranges.count * parts.count, p.operations, [&](int task) {
        const int part = task % parts.count, range = task / parts.count % ranges.count;
        const int group = task / parts.count / ranges.count % p.groups,
                  block = task / parts.count / ranges.count / p.groups;
        CorrelateRange<T>{p, tiles, block, group, parts.begin(part), parts.begin(part + 1)}.run(
            ranges.begin(range) * unit, std::min(vectors, ranges.begin(range + 1) * unit));
    });
}

// The kernel cells along one axis that inputs i ≡ phase (mod stride) meet, and where: output i/stride + shift. In the
// other direction outputs meet inputs in a single phase, with padding and dilation negative.
struct Phase {
    int kernel, count = 0;
    int cell[kMostCells], shift[kMostCells];
    Phase(int phase, int kernel, int stride, int pad, int dilation) : kernel(kernel) {
        for (int k = 0; k < kernel; ++k) {
            const int at = phase + pad - k * dilation, rest = (at % stride + stride) % stride;
            if (rest) continue;
            cell[count] = k;
            shift[count++] = at / stride;
        }
    }
    static Phase forward(int kernel, int pad, int dilation) { return {0, kernel, 1, -pad, -dilation}; }
};

// The taps of a convolution's windows: so many channels at a time.
inline Taps taps_of(const std::ptrdiff_t* offsets, int channels, int height, const Window& g, int chunk,
                    const Phase& rows) {
    const auto place = [&](int c, int i, int j) {
        return std::ptrdiff_t(c) * g.kernel_h * g.kernel_w + i * g.kernel_w + j;
    };
    return ordered(
        {channels, g.kernel_h, g.kernel_w, chunk, nullptr, nullptr, g.stride_h, height, rows.shift},
        [&](int c, int i, int j) { return offsets[place(c, i, j)]; }, place);
}

// y (N, F, *P) = x (N, C, *S) ∗ w (F, C/groups, *K) + bias (F), then perhaps ReLU
template <typename T>
void conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const int filters = y.channels / g.groups, channels = x.channels / g.groups;
    const auto in = windows(x, g);
    const Phase rows = Phase::forward(g.kernel_h, g.pad_h, g.dilation_h);
    const Taps taps = taps_of(in.taps, channels, x.height, g, chunk_of(g.kernel_h, g.kernel_w, filters), rows);
    correlate_all<T>({{y.cell(0, 0, 0), y.block(), y.channel(), y.row(), kWidth<T>, y.height, y.width},
                      in.data,
                      in.block,
                      in.channel * channels,
                      in.row,
                      in.step,
                      y.blocks(),
                      g.groups,
                      filters,
                      taps,
                      g.kernel_w - 1,
                      packed(w, taps, g.groups, {filters, kTileFilters}, std::ptrdiff_t(filters) * in.count, in.count),
                      bias,
                      false,
                      relu,
                      operations(y, x, g)});
}

// dx (N, C, *S) from dy (N, F, *P) and w (F, C/groups, *K), or added to what dx holds.
template <typename T>
void conv_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Window& g, bool add) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const int channels = dx.channels / g.groups, filters = dy.channels / g.groups;
    const int kernel = g.kernel_h * g.kernel_w;
    for (int a = 0; a < std::min(g.stride_h, dx.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, dx.width); ++b) {
            const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
            const Phase cells(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            if (add && (!rows.count || !cells.count)) continue;
            const Taps taps = ordered(
                {filters, rows.count, cells.count, chunk_of(rows.count, cells.count, channels), nullptr, nullptr, 1,
                 dy.height, rows.shift},
                [&](int f, int i, int j) { return f * dy.channel() + rows.shift[i] * dy.row() + cells.shift[j] * V; },
                [&](int f, int i, int j) {
                    return std::ptrdiff_t(f) * channels * kernel + rows.cell[i] * g.kernel_w + cells.cell[j];
                });
            const T* weights = packed(w, taps, g.groups, {channels, kTileFilters},
                                      std::ptrdiff_t(filters) * channels * kernel, kernel);
            const Grid<T> out{dx.cell(0, 0, a) + b * V,
                              dx.block(),
                              dx.channel(),
                              g.stride_h * dx.row(),
                              g.stride_w * V,
                              ceil_div(dx.height - a, g.stride_h),
                              ceil_div(dx.width - b, g.stride_w)};
            correlate_all<T>({out, dy.cell(0, 0, 0), dy.block(), dy.channel() * filters, dy.row(), V, dx.blocks(),
                              g.groups, channels, taps, 0, weights, nullptr, add, false,
                              operations(dy, dx, g) / g.stride_h / g.stride_w});
        }
}

}  // namespace
}  // namespace sharedgrad
