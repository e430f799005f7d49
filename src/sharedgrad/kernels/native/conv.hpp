// Convolution: its three passes over maps in blocks.
//
// All are sums over taps t, with a tap an offset into a map with margins:
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]              t = (channel, kernel cell)
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]             t = (filter, kernel cell), those that meet phase i mod stride
//   dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t]   the lanes are the samples' own gradients until the end
#pragma once

#include "kernels.hpp"
#include "pack.hpp"
#include "tile.hpp"

namespace sharedgrad {
namespace {

constexpr int kTasks = 16;      // enough for the threads to share evenly, few enough to keep rows together
constexpr int kLines = 512;     // vectors of input that stay in the first-level cache while all filters use them
constexpr int kPositions = 96;  // likewise while all taps use them

// Multiplications of one pass, a vector's worth counted as one.
template <typename T>
double operations(const Map<T>& small, const Map<T>& big, const Window& g) {
    return small.operations() * (big.channels / g.groups) * g.kernel_h * g.kernel_w / 8;
}

// ---- the columns of a map, phase by phase, so that vectors of several columns can be loaded at a stride

template <typename T>
bool phased(const Map<T>& x, const Window& g) {
    return g.stride_w > 1 && x.lanes < kWidth<T>;
}

template <typename T>
int phase_columns(const Map<T>& x, const Window& g) {
    return ceil_div(x.left + x.width + x.right, g.stride_w);
}

// [channel of any block][row][phase][column of the phase]
template <typename T>
const T* split_columns(const Map<T>& x, const Window& g) {
    const int columns = phase_columns(x, g), height = x.top + x.height + x.bottom;
    const std::ptrdiff_t row = std::ptrdiff_t(g.stride_w) * columns * x.lanes;
    const std::ptrdiff_t size = row * height * x.channels * x.blocks() + kWidth<T>;  // vectors are loaded whole
    T* split = memory<T>(kSplit, size);
    std::fill_n(split, size, T(0));
    T* to = split;
    for (int channel = 0; channel < x.blocks() * x.channels; ++channel)
        for (int h = 0; h < height; ++h, to += row) {
            const T* from = x.data + channel * x.channel() + h * x.row();
            for (int c = 0; c < x.left + x.width + x.right; ++c, from += x.lanes)
                std::copy_n(from, x.lanes, to + (c % g.stride_w * std::ptrdiff_t(columns) + c / g.stride_w) * x.lanes);
        }
    return split;
}

// ---- where windows find their cells

template <typename T>
struct Windows {
    const T* data;  // of the first window's first row
    std::ptrdiff_t block, channel, row, step;
    const std::ptrdiff_t* taps;
    int count;
};

template <typename T>
Windows<T> windows(const Map<T>& x, const Window& g) {
    const bool split = phased(x, g);
    const int columns = phase_columns(x, g), group_channels = x.channels / g.groups;
    const std::ptrdiff_t row = split ? std::ptrdiff_t(g.stride_w) * columns * x.lanes : x.row();
    const std::ptrdiff_t channel = split ? row * (x.top + x.height + x.bottom) : x.channel();
    auto* taps = memory<std::ptrdiff_t>(kTaps, std::size_t(group_channels) * g.kernel_h * g.kernel_w);
    int t = 0;
    for (int c = 0; c < group_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j) {
                const int q = x.left - g.pad_w + j * g.dilation_w;
                const int column = split ? q % g.stride_w * columns + q / g.stride_w : q;
                taps[t++] = c * channel + i * g.dilation_h * row + std::ptrdiff_t(column) * x.lanes;
            }
    return {(split ? split_columns(x, g) : x.data) + (x.top - g.pad_h) * row,
            channel * x.channels,
            channel,
            g.stride_h * row,
            std::ptrdiff_t(split ? 1 : g.stride_w) * kWidth<T>,
            taps,
            t};
}

// ---- forward and input gradient

// A grid of outputs: `rows` rows of vectors, for the filters of all groups and blocks.
template <typename T>
struct Grid {
    T* data;
    std::ptrdiff_t block, channel, row, step;
    int rows, columns, lanes;  // lanes of one column
};

template <typename T>
struct Correlation {
    Grid<T> out;
    const T* x;
    std::ptrdiff_t x_block, x_group, x_row, x_step;
    int blocks, groups, filters;  // filters of one group
    const std::ptrdiff_t* taps;
    int count, chunk;      // taps, and how many of them between one store of the sums and the next
    int columns, leading;  // taps of one kernel row, and which of them is the first to see new input
    const T* weights;      // of each group, tile by tile: [tap][filter]
    const T* bias;
    bool add, relu;
    double operations;
};

// A task's share of the outputs: a range of vectors for a range of filter tiles.
template <typename T>
void correlate_range(const Correlation<T>& p, const Tiles& tiles, int block, int group, int first_tile, int end_tile,
                     int first, int end) {
    const int vectors = ceil_div(p.out.columns * p.out.lanes, kWidth<T>);
    const int last = p.out.columns * p.out.lanes - (vectors - 1) * kWidth<T>;
    const int most = most_columns(tiles.size(0));
    T* const y = p.out.data + block * p.out.block + std::ptrdiff_t(group) * p.filters * p.out.channel;
    const T* const x = p.x + block * p.x_block + group * p.x_group;
    for (int at = first; at < end; at += most) {
        const int n = std::min(most, end - at);
        T* out[kMostColumns];
        T* shifted[kMostColumns];
        const T* from[kMostColumns];
        int valid[kMostColumns];
        for (int c = 0; c < n; ++c) {
            const int h = (at + c) / vectors, v = (at + c) % vectors;
            out[c] = y + h * p.out.row + v * p.out.step;
            from[c] = x + h * p.x_row + v * p.x_step;
            valid[c] = v == vectors - 1 ? last : kWidth<T>;
        }
        const int h = (at + most) / vectors, v = (at + most) % vectors;  // of the next round
        const T* const next = x + h * p.x_row + v * p.x_step;
        const T* const next_out = y + h * p.out.row + v * p.out.step;
        int start = 0;
        do {  // once even where there are no taps: the outputs are the bias
            const int count = std::min(p.chunk, p.count - start);
            for (int i = first_tile; i < end_tile; ++i) {
                const int f = tiles.begin(i), size = tiles.size(i), filter = group * p.filters + f;
                for (int c = 0; c < n; ++c) shifted[c] = out[c] + f * p.out.channel;
                if (at + most < end) {
                    const int rows = p.columns ? count / p.columns : 0, n_tiles = end_tile - first_tile,
                              k = i - first_tile;
                    for (int r = rows * k / n_tiles; r < rows * (k + 1) / n_tiles; ++r)
                        for (int c = 0; c < n; ++c)
                            __builtin_prefetch(next + p.taps[start + r * p.columns + p.leading] + c * p.x_step);
                    if (!start)
                        for (int g = 0; g < size; ++g)
                            for (int c = 0; c < n; ++c)
                                __builtin_prefetch(next_out + (f + g) * p.out.channel + c * p.out.step, 1);
                }
                const T* w = p.weights + std::size_t(filter) * p.count + std::size_t(start) * size;
                kCorrelate<T>[size - 1][n - 1]({shifted, p.out.channel, from, p.taps + start, count, w,
                                                p.bias ? p.bias + filter : nullptr, valid, p.add || start,
                                                p.relu && start + count == p.count});
            }
            start += count;
        } while (start < p.count);
    }
}

template <typename T>
void correlate_all(const Correlation<T>& p) {
    const Tiles tiles(p.filters, kTileFilters);
    const int vectors = p.out.rows * ceil_div(p.out.columns * p.out.lanes, kWidth<T>);
    const int most = most_columns(tiles.size(0)), pieces = ceil_div(vectors, most);
    const Tiles ranges(pieces, ceil_div(pieces, ceil_div(kTasks, p.blocks * p.groups)));
    const int cuts = ceil_div(kTasks / 2, p.blocks * p.groups * ranges.count);
    const Tiles parts(tiles.count, ceil_div(tiles.count, cuts));
    parallel(p.blocks * p.groups * ranges.count * parts.count, p.operations, [&](int task) {
        const int part = task % parts.count, range = task / parts.count % ranges.count;
        const int group = task / parts.count / ranges.count % p.groups,
                  block = task / parts.count / ranges.count / p.groups;
        correlate_range(p, tiles, block, group, parts.begin(part), parts.begin(part + 1), ranges.begin(range) * most,
                        std::min(vectors, ranges.begin(range + 1) * most));
    });
}

// Taps of whole channels whose windows fill the share of the cache.
inline int chunk_of(int kernel_h, int kernel_w, int filters) {
    const int lines = std::max(1, kernel_h * (kernel_w + most_columns(std::min(filters, kTileFilters)) - 1));
    return std::max(1, kernel_h * kernel_w) * std::max(1, kLines / lines);
}

template <typename T>
void conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const int filters = y.channels / g.groups;
    const auto in = windows(x, g);
    const Tiles tiles(filters, kTileFilters);
    T* weights = memory<T>(kWeights, std::size_t(y.channels) * in.count);
    parallel(g.groups * tiles.count, double(y.channels) * in.count, [&](int task) {
        const int i = task % tiles.count, size = tiles.size(i);
        const std::size_t first = (task / tiles.count * filters + tiles.begin(i)) * std::size_t(in.count);
        for (int f = 0; f < size; ++f)
            for (int t = 0; t < in.count; ++t) weights[first + t * size + f] = w[first + f * in.count + t];
    });
    correlate_all<T>({{y.cell(0, 0, 0), y.block(), y.channel(), y.row(), kWidth<T>, y.height, y.width, y.lanes},
                      in.data,
                      in.block,
                      in.channel * (x.channels / g.groups),
                      in.row,
                      in.step,
                      y.blocks(),
                      g.groups,
                      filters,
                      in.taps,
                      in.count,
                      chunk_of(g.kernel_h, g.kernel_w, filters),
                      g.kernel_w,
                      g.kernel_w - 1,
                      weights,
                      bias,
                      false,
                      relu,
                      operations(y, x, g)});
}

constexpr int kMostCells = 64;  // along one axis; native/__init__.py lets NumPy have larger kernels

// The kernel cells along one axis that inputs i ≡ phase (mod stride) meet, and where: output i/stride + shift.
struct Phase {
    int count = 0;
    int cell[kMostCells], shift[kMostCells];
    Phase(int phase, int kernel, int stride, int pad, int dilation) {
        for (int k = 0; k < kernel; ++k) {
            const int at = phase + pad - k * dilation, rest = (at % stride + stride) % stride;
            if (rest) continue;
            cell[count] = k;
            shift[count++] = at / stride;
        }
    }
};

// The weights as one phase's taps meet them, tile by tile: [tap][channel], with a tap for each filter and cell.
template <typename T>
void phase_weights(T* weights, const T* w, const Window& g, const Tiles& tiles, int channels, int filters,
                   const Phase& rows, const Phase& columns) {
    const int cells = g.kernel_h * g.kernel_w, count = filters * rows.count * columns.count;
    parallel(g.groups * tiles.count, double(g.groups) * channels * count, [&](int task) {
        const int group = task / tiles.count, i = task % tiles.count, first = tiles.begin(i), size = tiles.size(i);
        T* to = weights + std::size_t(group * channels + first) * count;
        for (int f = 0; f < filters; ++f)
            for (int a = 0; a < rows.count; ++a)
                for (int b = 0; b < columns.count; ++b, to += size) {
                    const int cell = rows.cell[a] * g.kernel_w + columns.cell[b];
                    const T* from = w + (std::size_t(group * filters + f) * channels + first) * cells + cell;
                    for (int c = 0; c < size; ++c) to[c] = from[std::size_t(c) * cells];
                }
    });
}

// dx with its columns phase by phase, back in order.
template <typename T>
void merge_columns(const Map<T>& dx, const T* split, int columns, int stride, bool add) {
    for (int b = 0; b < dx.blocks(); ++b)
        for (int c = 0; c < dx.channels; ++c)
            for (int h = 0; h < dx.height; ++h, split += std::ptrdiff_t(stride) * columns * dx.lanes) {
                T* to = dx.cell(b, c, h);
                for (int w = 0; w < dx.width; ++w) {
                    const T* from = split + (w % stride * std::ptrdiff_t(columns) + w / stride) * dx.lanes;
                    for (int l = 0; l < dx.lanes; ++l) {
                        T& cell = to[std::ptrdiff_t(w) * dx.lanes + l];
                        cell = add ? cell + from[l] : from[l];
                    }
                }
            }
}

// dx from dy, or added to what dx holds.
template <typename T>
void conv_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Window& g, bool add) {
    const int channels = dx.channels / g.groups, filters = dy.channels / g.groups;
    const bool split = phased(dx, g);
    const int columns = ceil_div(dx.width, g.stride_w);
    Grid<T> grid{dx.cell(0, 0, 0), dx.block(), dx.channel(), dx.row(), 0, 0, 0, dx.lanes};
    if (split) {
        grid.row = std::ptrdiff_t(g.stride_w) * columns * dx.lanes;
        grid.channel = grid.row * dx.height;
        grid.block = grid.channel * dx.channels;
        grid.data = memory<T>(kSplit, grid.block * dx.blocks());
    }
    const Tiles tiles(channels, kTileFilters);
    const std::size_t most = std::size_t(filters) * g.kernel_h * g.kernel_w;
    auto* taps = memory<std::ptrdiff_t>(kTaps, most);
    T* weights = memory<T>(kWeights, most * dx.channels);
    for (int a = 0; a < std::min(g.stride_h, dx.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, dx.width); ++b) {
            const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
            const Phase cells(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            int count = 0;
            for (int f = 0; f < filters; ++f)
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < cells.count; ++j)
                        taps[count++] =
                            f * dy.channel() + rows.shift[i] * dy.row() + std::ptrdiff_t(cells.shift[j]) * dy.lanes;
            if (add && !split && !count) continue;
            phase_weights(weights, w, g, tiles, channels, filters, rows, cells);
            Grid<T> out = grid;
            out.data += a * grid.row + (split ? std::ptrdiff_t(b) * columns : b) * dx.lanes;
            out.row = g.stride_h * grid.row;
            out.step = std::ptrdiff_t(split ? 1 : g.stride_w) * kWidth<T>;
            out.rows = ceil_div(dx.height - a, g.stride_h);
            out.columns = ceil_div(dx.width - b, g.stride_w);
            correlate_all<T>({out, dy.cell(0, 0, 0), dy.block(), dy.channel() * filters, dy.row(), kWidth<T>,
                              dx.blocks(), g.groups, channels, taps, count, chunk_of(rows.count, cells.count, channels),
                              cells.count, 0, weights, nullptr, add && !split, false,
                              operations(dy, dx, g) / g.stride_h / g.stride_w});
        }
    if (split) merge_columns(dx, grid.data, columns, g.stride_w, add);
}

// ---- weight gradient

// How the weight gradient is cut into tasks: the sums of one stay in the second-level cache, and there are enough for
// the threads.
struct KernelTasks {
    Tiles f_tiles, t_tiles, f_ranges, t_ranges;
    int count;
    KernelTasks(int filters, int taps, int groups)
        : f_tiles(filters, kTileDeltas),
          t_tiles(taps, kTileTaps),
          f_ranges(f_tiles.count, 4),
          t_ranges(t_tiles.count, std::min(24, ceil_div(t_tiles.count, ceil_div(kTasks / 2, groups * f_ranges.count)))),
          count(groups * f_ranges.count * t_ranges.count) {}
};

// What a task has added up: [filter][tap][lane], of its own filters and taps of the whole kernel. The lanes are samples
// and columns.
template <typename T>
struct KernelSums {
    T* sums;
    int filter, filters, tap, taps;
    std::ptrdiff_t weight(int f, int taps_of_filter) const {  // where row f begins in the kernel
        return std::ptrdiff_t(filter + f) * taps_of_filter + tap;
    }
    T* row(int f) const { return sums + std::ptrdiff_t(f) * taps * kWidth<T>; }
};

// The sums of a range of filters and taps over all positions.
template <typename T>
struct WeightGradient {
    const Map<T>& dy;
    const Windows<T>& in;
    const KernelTasks& cut;
    int filters, channels;  // of one group

    void positions(T* sums, int block, int group, int f_begin, int f_end, int t_begin, int t_end) const {
        const int V = kWidth<T>, vectors = ceil_div(dy.width * dy.lanes, V);
        const int last = dy.width * dy.lanes - (vectors - 1) * V;
        const Tiles rows(dy.height, std::max(1, kPositions / vectors));
        const int first = cut.f_tiles.begin(f_begin), tap = cut.t_tiles.begin(t_begin);
        const std::ptrdiff_t own = cut.t_tiles.begin(t_end) - tap;
        const T* const x = in.data + block * in.block + std::ptrdiff_t(group) * channels * in.channel;
        for (int r = 0; r < rows.count; ++r)
            for (int i = f_begin; i < f_end; ++i) {
                const int f = cut.f_tiles.begin(i);
                for (int k = t_begin; k < t_end; ++k) {
                    const int t = cut.t_tiles.begin(k), h = rows.begin(r);
                    outer<T>(cut.f_tiles.size(i), cut.t_tiles.size(k),
                             {sums + ((f - first) * own + t - tap) * V, own * V, dy.cell(block, group * filters + f, h),
                              dy.channel(), dy.row(), x + h * in.row, in.step, in.row, in.taps + t, rows.size(r),
                              vectors, last});
                }
            }
    }
};

// finish(task, block, sums) after each block of samples, or once after all of them.
template <typename T, typename Finish>
void kernel_sums(const Map<T>& dy, const Map<T>& x, const Window& g, const Windows<T>& in, const KernelTasks& cut,
                 bool by_block, const Finish& finish) {
    const int filters = dy.channels / g.groups, blocks = dy.blocks();
    const WeightGradient<T> pass{dy, in, cut, filters, x.channels / g.groups};
    parallel(cut.count, operations(dy, x, g), [&](int task) {
        const int t_range = task % cut.t_ranges.count, f_range = task / cut.t_ranges.count % cut.f_ranges.count;
        const int group = task / cut.t_ranges.count / cut.f_ranges.count;
        const int f_begin = cut.f_ranges.begin(f_range), f_end = cut.f_ranges.begin(f_range + 1);
        const int t_begin = cut.t_ranges.begin(t_range), t_end = cut.t_ranges.begin(t_range + 1);
        const int first = cut.f_tiles.begin(f_begin), tap = cut.t_tiles.begin(t_begin);
        KernelSums<T> own{nullptr, group * filters + first, cut.f_tiles.begin(f_end) - first, tap,
                          cut.t_tiles.begin(t_end) - tap};
        const std::size_t size = std::size_t(own.filters) * own.taps * kWidth<T>;
        T* sums = memory<T>(kSums, size);
        own.sums = sums;
        std::fill_n(sums, size, T(0));
        for (int block = 0; block < blocks; ++block) {
            pass.positions(sums, block, group, f_begin, f_end, t_begin, t_end);
            if (by_block || block == blocks - 1) finish(task, block, own);
            if (by_block) std::fill_n(sums, size, T(0));
        }
    });
}

// What one sample has of a vector of sums: its columns added.
template <typename T>
inline T of_sample(const T* lanes, int l, int samples) {
    T sum = 0;
    for (int i = l; i < kWidth<T>; i += samples) sum += lanes[i];
    return sum;
}

template <typename T>
void conv_kernel_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr int V = kWidth<T>;
    const auto in = windows(x, g);
    const KernelTasks cut(dy.channels / g.groups, in.count, g.groups);
    const std::ptrdiff_t sample = std::ptrdiff_t(dy.channels) * in.count;
    kernel_sums(dy, x, g, in, cut, by_sample, [&](int, int block, const KernelSums<T>& own) {
        if (!by_sample) sum_each(own.sums, std::ptrdiff_t(own.filters) * own.taps);
        for (int f = 0; f < own.filters; ++f) {
            T* to = dw + own.weight(f, in.count);
            if (!by_sample) {
                std::copy_n(own.sums + std::ptrdiff_t(f) * own.taps, own.taps, to);
                continue;
            }
            const T* from = own.row(f);
            T* samples[V];
            for (int l = 0; l < dy.alive(block); ++l) samples[l] = to + (block * dy.lanes + l) * sample;
            if (dy.lanes == V)
                separate(samples, from, own.taps, dy.alive(block));
            else
                for (int t = 0; t < own.taps; ++t)
                    for (int l = 0; l < dy.alive(block); ++l) samples[l][t] = of_sample(from + t * V, l, dy.lanes);
        }
    });
}

}  // namespace
}  // namespace sharedgrad
