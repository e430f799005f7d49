// Between maps in blocks and plain arrays (N, C, H, W).
#pragma once

#include "layout.hpp"

namespace sharedgrad {
namespace {

// to[i·step + l] = from[l][i] for i < count and l < alive; the other lanes are zero
template <typename T, typename From>
void interleave(T* to, From* const (&from)[kWidth<T>], int count, int alive, std::ptrdiff_t step = kWidth<T>) {
    vectors_of<T>(count, [&](auto i, auto n, int) {
        Vector<T> rows[kWidth<T>];
        for (int l = 0; l < kWidth<T>; ++l)
            rows[l] = l < alive ? load_part(static_cast<const T*>(from[l]) + i, n) : Vector<T>{};
        transpose<T>(rows);
        for (int j = 0; j < n; ++j) store(to + (i + j) * step, rows[j]);
    });
}

// to[l][i] = from[i·V + l] for i < count and l < alive
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

// to[i] = from[i·step] for i < count; so many numbers are there to be read
template <typename T>
void take_each(T* to, const T* from, int count, int step, int there) {
    constexpr int V = kWidth<T>;
    int i = 0;
    for (; step == 2 && i + V <= std::min(count, there / 2); i += V)
        store(to + i, every<2>(load(from + 2 * i), load(from + 2 * i + V), kAllLanes<T>));
    for (; i < count; ++i) to[i] = from[std::ptrdiff_t(i) * step];
}

// The same numbers in another memory order; a vector's elements are a map's cells in the order of channel, row, column.
template <typename T>
void relayout(const Map<T>& to, const Map<T>& from) {
    if (to.lanes == from.lanes) {  // both plain
        std::copy_n(from.data, from.size(), to.data);
        return;
    }
    const bool into = to.lanes > 1;
    const Map<T>&blocks = into ? to : from, &plain = into ? from : to;
    const int rows = blocks.bare() ? 1 : blocks.height, cells = blocks.height * blocks.width, row = cells / rows;
    channels_of(blocks, 4 * blocks.operations(), [&](int b, int c) {
        T* lanes[kWidth<T>];
        const int alive = blocks.alive(b);
        for (int l = 0; l < alive; ++l) lanes[l] = plain.data + blocks.number(b, c, l) * cells;
        for (int h = 0; h < rows; ++h) {
            if (into)
                interleave(blocks.cell(b, c, h), lanes, row, alive);
            else
                separate(lanes, blocks.cell(b, c, h), row, alive);
            for (int l = 0; l < alive; ++l) lanes[l] += row;
        }
    });
}

}  // namespace
}  // namespace sharedgrad
