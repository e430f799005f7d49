// 1×1 convolution at stride 1: products of matrices over rows of cells. While all filters use one row of all channels,
// the next row is on its way from memory.
#pragma once

#include "conv.hpp"

namespace sharedgrad {
namespace {

using PointwiseMemory = Owner<kTaps, kWeights>;
using PointwiseGradientMemory = Owner<kTaps, kSums, kParts>;

constexpr int kRowVectors = 32;     // of each channel in one piece of work
constexpr int kChannels = 128;      // whose share of a tile stays in the first-level cache
constexpr int kSumBytes = 1 << 19;  // of weight gradients, lane by lane, that stay in the second-level cache
constexpr int kSumTasks = 8;        // each has sums of its own

template <typename T>
bool pointwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    return big.lanes == kWidth<T> && g.groups == 1 && g.kernel_h * g.kernel_w * g.stride_h * g.stride_w == 1 &&
           !g.pad_h && !g.pad_w && small.height == big.height && small.width == big.width;
}

// Some cells of some rows of one block, in all channels.
struct Piece {
    int block, row, rows, column, columns;
};

// A map cut into pieces of about kRowVectors cells: whole rows, or parts of one.
struct Pieces {
    int height, width, rows, down, across;
    Pieces(int height, int width)
        : height(height),
          width(width),
          rows(std::max(1, kRowVectors / width)),
          down(ceil_div(height, rows)),
          across(ceil_div(width, kRowVectors)) {}
    int of_block() const { return down * across; }
    Piece operator[](int i) const {
        const int row = i / across % down * rows, column = i % across * kRowVectors;
        return {i / of_block(), row, std::min(rows, height - row), column, std::min(kRowVectors, width - column)};
    }
};

// Asks for the cells of a piece, channel by channel, a few at a time.
template <typename T>
struct Ahead {
    const T *at, *row_end;
    std::ptrdiff_t columns, to_row, to_channel;
    int rows, row = 0, left, share;

    Ahead(const Map<T>& map, const Piece& p, int calls)
        : at(map.cell(p.block, 0, p.row) + std::ptrdiff_t(p.column) * kWidth<T>),
          columns(std::ptrdiff_t(p.columns) * kWidth<T>),
          to_row(map.row() - columns),
          to_channel(map.channel() - (p.rows - 1) * map.row() - columns),
          rows(p.rows),
          left(map.channels * p.rows * p.columns),
          share(ceil_div(left, calls)) {
        row_end = at + columns;
    }

    template <bool Write>
    void fetch() {
        const int n = std::min(share, left);
        left -= n;
        for (int i = 0; i < n; ++i) {
            __builtin_prefetch(at, Write, Write ? 3 : 2);
            if ((at += kWidth<T>) != row_end) continue;
            const bool done = ++row == rows;
            if (done) row = 0;
            at += done ? to_channel : to_row;
            row_end = at + columns;
        }
    }
};

// out[f] = Σ_c w[c][f] · in[c] + bias or what out holds; then perhaps ReLU, or zero where `through`, the output of a
// ReLU, is. The weights lie tile by tile of filters: [channel][filter].
template <typename T>
void multiply_channels(const Map<T>& out, const Map<T>& in, const T* weights, const T* bias, bool add, bool relu,
                       const Map<T>* through) {
    const EvenRanges tiles(out.channels, kTileFilters), chunks(in.channels, kChannels);
    const int most = most_columns(tiles.size(0));
    const Pieces pieces(out.height, out.width);
    const int count = out.blocks() * pieces.of_block();
    const EvenRanges tasks(count, ceil_div(count, kTasks));
    auto* taps = PointwiseMemory::memory<std::ptrdiff_t, kTaps>(in.channels);
    for (int c = 0; c < in.channels; ++c) taps[c] = c * in.channel();
    parallel(tasks.count, out.operations() * in.channels / 8, [&](int task) {
        const int end = tasks.begin(task) + tasks.size(task);
        for (int i = tasks.begin(task); i < end; ++i) {
            const Piece p = pieces[i], next = pieces[std::min(i + 1, end - 1)];
            const EvenRanges columns(p.columns, most);
            const int calls = p.rows * columns.count * chunks.count * tiles.count;
            Ahead<T> ahead_in(in, next, calls), ahead_out(out, next, calls),
                ahead_gate(through ? *through : out, next, calls);
            for (int r = 0; r < p.rows; ++r)
                for (int k = 0; k < columns.count; ++k) {
                    const int n = columns.size(k);
                    const std::ptrdiff_t at = std::ptrdiff_t(p.column + columns.begin(k)) * kWidth<T>;
                    const T* from[kMostColumns];
                    T* to[kMostColumns];
                    const T* gate[kMostColumns];
                    int valid[kMostColumns];
                    for (int c = 0; c < n; ++c) {
                        from[c] = in.cell(p.block, 0, p.row + r) + at + c * kWidth<T>;
                        valid[c] = kWidth<T>;
                    }
                    for (int chunk = 0; chunk < chunks.count; ++chunk)
                        for (int t = 0; t < tiles.count; ++t) {
                            const int f = tiles.begin(t), size = tiles.size(t), first = chunks.begin(chunk);
                            const bool last = chunk == chunks.count - 1;
                            for (int c = 0; c < n; ++c) {
                                to[c] = out.cell(p.block, f, p.row + r) + at + c * kWidth<T>;
                                if (through) gate[c] = through->cell(p.block, f, p.row + r) + at + c * kWidth<T>;
                            }
                            if (i + 1 < end) {
                                ahead_in.template fetch<false>();
                                ahead_out.template fetch<true>();
                                if (through) ahead_gate.template fetch<false>();
                            }
                            const T* w = weights + std::size_t(f) * in.channels + std::size_t(first) * size;
                            kCorrelate<T>[size - 1][n - 1]({to, out.channel(), from, taps + first, chunks.size(chunk),
                                                            w, bias ? bias + f : nullptr, valid, add || chunk,
                                                            relu && last, through && last ? gate : nullptr,
                                                            through ? through->channel() : 0});
                        }
                }
        }
    });
}

template <typename T>
void pointwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, bool relu) {
    const EvenRanges tiles(y.channels, kTileFilters);
    T* weights = PointwiseMemory::memory<T, kWeights>(std::size_t(y.channels) * x.channels);
    for (int i = 0; i < tiles.count; ++i)
        for (int c = 0; c < x.channels; ++c)
            for (int f = 0; f < tiles.size(i); ++f)
                weights[std::size_t(tiles.begin(i)) * x.channels + c * tiles.size(i) + f] =
                    w[std::size_t(tiles.begin(i) + f) * x.channels + c];
    multiply_channels<T>(y, x, weights, bias, false, relu, nullptr);
}

template <typename T>
void pointwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, bool add) {
    const EvenRanges tiles(dx.channels, kTileFilters);
    T* weights = PointwiseMemory::memory<T, kWeights>(std::size_t(dy.channels) * dx.channels);
    for (int i = 0; i < tiles.count; ++i)
        for (int f = 0; f < dy.channels; ++f)
            std::copy_n(w + std::size_t(f) * dx.channels + tiles.begin(i), tiles.size(i),
                        weights + std::size_t(tiles.begin(i)) * dy.channels + std::size_t(f) * tiles.size(i));
    multiply_channels<T>(dx, dy, weights, nullptr, add, false, through);
}

// dw[f][c] = Σ dy[f] · x[c], dbias[f] = Σ dy[f]. Each task goes over its pieces once, with the sums of some filters
// and all channels apart by lane; at the end the tasks' sums are added.
template <typename T>
void pointwise_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x) {
    constexpr int V = kWidth<T>;
    const int filters = dy.channels, channels = x.channels;
    const EvenRanges f_tiles(filters, kTileDeltas), c_tiles(channels, kTileTaps);
    const int together = std::max(1, int(kSumBytes / sizeof(T) / V / (channels + 1) / kTileDeltas));  // tiles
    const EvenRanges ranges(f_tiles.count, together);
    const Pieces pieces(dy.height, dy.width);
    const int count = dy.blocks() * pieces.of_block();
    const EvenRanges shares(count, ceil_div(count, ceil_div(kSumTasks, ranges.count)));
    const std::size_t size = std::size_t(filters) * (channels + 1);
    T* parts =
        PointwiseGradientMemory::memory<T, kParts>(size * shares.count);  // of each share: [filter][channel, then bias]
    auto* taps = PointwiseGradientMemory::memory<std::ptrdiff_t, kTaps>(channels);
    for (int c = 0; c < channels; ++c) taps[c] = c * x.channel();
    parallel(ranges.count * shares.count, dy.operations() * channels / 8, [&](int task) {
        const int range = task % ranges.count, share = task / ranges.count;
        const int first_tile = ranges.begin(range), end_tile = first_tile + ranges.size(range);
        const int first = f_tiles.begin(first_tile);
        const int own = f_tiles.begin(end_tile) - first;
        const std::ptrdiff_t row = std::ptrdiff_t(channels + 1) * V;
        T* sums = PointwiseGradientMemory::memory<T, kSums>(own * row);
        std::fill_n(sums, own * row, T(0));
        const int end = shares.begin(share) + shares.size(share);
        for (int i = shares.begin(share); i < end; ++i) {
            const Piece p = pieces[i], next = pieces[std::min(i + 1, end - 1)];
            const std::ptrdiff_t at = std::ptrdiff_t(p.column) * V;
            const int calls = (end_tile - first_tile) * c_tiles.count;
            Ahead<T> ahead_x(x, next, calls), ahead_dy(dy, next, calls);
            for (int pair = first_tile; pair < end_tile; pair += 2)  // their cells stay in the first-level cache
                for (int k = 0; k < c_tiles.count; ++k)
                    for (int t = pair; t < std::min(pair + 2, end_tile); ++t) {
                        const int f = f_tiles.begin(t);
                        if (i + 1 < end) {
                            ahead_x.template fetch<false>();
                            ahead_dy.template fetch<false>();
                        }
                        T* to = sums + (f - first) * row;
                        outer<T>(f_tiles.size(t), c_tiles.size(k),
                                 {to + c_tiles.begin(k) * V, row, dy.cell(p.block, f, p.row) + at, dy.channel(),
                                  dy.row(), x.cell(p.block, 0, p.row) + at, V, x.row(), taps + c_tiles.begin(k), p.rows,
                                  p.columns, V, true});
                        if (k || !dbias) continue;
                        for (int g = 0; g < f_tiles.size(t); ++g) {
                            Vector<T> sum = load(to + g * row + channels * V);
                            for (int r = 0; r < p.rows; ++r)
                                for (int c = 0; c < p.columns; ++c)
                                    sum += load(dy.cell(p.block, f + g, p.row + r) + at + c * V);
                            store(to + g * row + channels * V, sum);
                        }
                    }
        }
        T* part = parts + share * size + std::size_t(first) * (channels + 1);
        for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(own) * (channels + 1); ++i)
            part[i] = total<T>(load(sums + i * V));
    });
    for (int f = 0; f < filters; ++f)
        for (int c = 0; c <= channels; ++c) {
            double sum = 0;
            for (int share = 0; share < shares.count; ++share)
                sum += parts[share * size + std::size_t(f) * (channels + 1) + c];
            if (c < channels)
                dw[std::size_t(f) * channels + c] = T(sum);
            else if (dbias)
                dbias[f] = T(sum);
        }
}

}  // namespace
}  // namespace sharedgrad
