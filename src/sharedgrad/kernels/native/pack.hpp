// Between maps with different numbers of samples side by side; plain arrays (N, C, H, W) have one.
#pragma once

#include "layout.hpp"

namespace sharedgrad {
namespace {

// to[i·step + l] = from[l][i] for i < count and l < alive; the other lanes are zero
template <typename T>
void interleave(T* to, const T* const (&from)[kWidth<T>], int count, int alive, std::ptrdiff_t step = kWidth<T>) {
    vectors_of<T>(count, [&](auto i, auto n, int) {
        Vector<T> rows[kWidth<T>];
        for (int l = 0; l < kWidth<T>; ++l) rows[l] = l < alive ? load_part(from[l] + i, n) : Vector<T>{};
        transpose<T>(rows);
        for (int j = 0; j < n; ++j) store(to + (i + j) * step, rows[j]);
    });
}

// to[l][i] = from[i·V + l] for i < count and l < alive.
template <typename T>
void separate(T* const (&to)[kWidth<T>], const T* from, int count, int alive) {
    constexpr int V = kWidth<T>;
    vectors_of<T>(count, [&](auto i, auto n, int) {
        Vector<T> rows[V];
        for (int j = 0; j < V; ++j) rows[j] = j < n ? load(from + (i + j) * V) : Vector<T>{};
        transpose<T>(rows);
        for (int l = 0; l < alive; ++l) store_part(to[l] + i, rows[l], n);
    });
}

// Some cells of I samples side by side, from or to the samples' own memory.
template <typename T>
void exchange(T* row, T* const (&samples)[kWidth<T>], int cells, int I, int alive, bool into) {
    if (I == kWidth<T> && into)
        interleave<T>(row, const_cast<const T* const(&)[kWidth<T>]>(samples), cells, alive);
    else if (I == kWidth<T>)
        separate<T>(samples, row, cells, alive);
    else if (into)
        for (int i = 0; i < cells; ++i)
            for (int l = 0; l < I; ++l) row[std::ptrdiff_t(i) * I + l] = l < alive ? samples[l][i] : T(0);
    else
        for (int i = 0; i < cells; ++i)
            for (int l = 0; l < alive; ++l) samples[l][i] = row[std::ptrdiff_t(i) * I + l];
}

// One sample of a plain array, and of a map by channel, as maps of C samples with one channel.
template <typename T>
Map<T> channels_of_sample(Map<T> m, const Map<T>& by_channel, int n) {
    const int cells = by_channel.height * by_channel.width;
    const std::ptrdiff_t sample =
        m.by_channel() ? m.block() * m.blocks_of_sample() : std::ptrdiff_t(by_channel.lane_channels) * cells;
    m.data += n * sample;
    m.samples = by_channel.lane_channels;
    if (!m.by_channel()) m.channels = 1, m.height = by_channel.height, m.width = by_channel.width;
    return m;
}

// The same numbers in another memory order; a vector's elements are a map's cells in the order of channel, row, column.
template <typename T>
void relayout(const Map<T>& to, const Map<T>& from) {
    constexpr int V = kWidth<T>;
    if (to.by_channel() != from.by_channel()) {
        const Map<T> own = to.by_channel() ? to : from;
        for (int n = 0; n < own.logical().samples; ++n) {
            Map<T> a = channels_of_sample(to, own, n), b = channels_of_sample(from, own, n);
            a.lane_channels = b.lane_channels = 0;
            relayout(a, b);
        }
        return;
    }
    if (to.lanes == from.lanes && to.bare() && from.bare() && (to.lanes == 1 || to.channel() == from.channel())) {
        std::copy_n(from.data, from.size(), to.data);
        return;
    }
    const bool into =
        to.lanes > from.lanes || (to.lanes == from.lanes && to.height * to.width > from.height * from.width);
    const Map<T>& wide = into ? to : from;
    Map<T> plain = into ? from : to;  // one sample side by side, or as many as the other
    if (plain.bare()) plain.channels = wide.channels, plain.height = wide.height, plain.width = wide.width;
    const bool whole = to.bare() && from.bare();  // all cells of a channel lie in one piece
    const int height = whole ? 1 : wide.height, cells = whole ? wide.height * wide.width : wide.width;
    if (whole && plain.lanes == 1 && wide.channel() == std::ptrdiff_t(cells) * wide.lanes) {  // and all channels do
        constexpr int piece = 8 * V;
        const int all = wide.channels * cells, pieces = ceil_div(all, piece);
        parallel(wide.blocks() * pieces, 4 * from.operations(), [&, I = wide.lanes](int task) {
            const int block = task / pieces, begin = task % pieces * piece, alive = wide.alive(block);
            T* samples[kWidth<T>];
            for (int l = 0; l < alive; ++l) samples[l] = plain.cell(block * I + l, 0, 0) + begin;
            exchange(wide.cell(block, 0, 0) + std::ptrdiff_t(begin) * I, samples, std::min(piece, all - begin), I,
                     alive, into);
        });
        return;
    }
    parallel(wide.blocks() * wide.channels, 4 * from.operations(), [&, I = wide.lanes](int task) {
        const int block = task / wide.channels, c = task % wide.channels, alive = wide.alive(block);
        for (int h = 0; h < height; ++h) {
            T* const row = wide.cell(block, c, h);
            if (plain.lanes == I) {
                T* const other = plain.cell(block, c, h);
                std::copy_n(into ? other : row, std::ptrdiff_t(cells) * I, into ? row : other);
                continue;
            }
            T* samples[kWidth<T>];
            for (int l = 0; l < alive; ++l) samples[l] = plain.cell(block * I + l, c, h);
            exchange(row, samples, cells, I, alive, into);
        }
    });
}

}  // namespace
}  // namespace sharedgrad
