// Numbers that move and stay what they are: padding with copies of cells, and channels from one map to another.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

// The cell of an axis of n cells whose copy lies at index i, which may be outside; a reflection reaches n − 1 far.
inline int copied_cell(int i, int n, int mode) {
    if (mode == kReplicate) return std::min(std::max(i, 0), n - 1);
    if (mode == kCircular) return (i % n + n) % n;
    return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
}

// y is x with copies of its cells around it.
template <typename T>
void pad(const Map<T>& y, const Map<T>& x, int mode, int top, int left) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    channels_of(y, y.operations(), [&](int b, int c) {
        for (int h = 0; h < y.height; ++h) {
            const T* from = x.cell(b, c, copied_cell(h - top, x.height, mode));
            T* to = y.cell(b, c, h);
            std::copy_n(from, x.used(), to + left * V);
            const auto copy = [&](int w) { store(to + w * V, load(from + copied_cell(w - left, x.width, mode) * V)); };
            for (int w = 0; w < left; ++w) copy(w);
            for (int w = left + x.width; w < y.width; ++w) copy(w);
        }
    });
}

// Each cell of dx is the sum over all its copies in dy.
template <typename T>
void pad_backward(const Map<T>& dx, const Map<T>& dy, int mode, int top, int left) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    channels_of(dy, dy.operations(), [&](int b, int c) {
        clear(dx, b, c);
        for (int h = 0; h < dy.height; ++h) {
            const T* from = dy.cell(b, c, h);
            T* to = dx.cell(b, c, copied_cell(h - top, dx.height, mode));
            for (int w = 0; w < dy.width; ++w) {
                T* const sum = to + copied_cell(w - left, dx.width, mode) * V;
                store(sum, load(sum) + load(from + w * V));
            }
        }
    });
}

// So many channels, from one map into another of the same cells.
template <typename T>
void copy_channels(const Map<T>& to, const Map<T>& from, int first_to, int first_from, int count) {
    if (to.by_channel()) {  // number by number: samples are few
        for (int n = 0; n < to.logical().samples; ++n)
            for (int c = 0; c < count; ++c)
                for (int h = 0; h < to.height; ++h) {
                    const int i = first_to + c, j = first_from + c;
                    T* const row = to.cell(n * to.blocks_of_sample() + i / to.lanes, 0, h) + i % to.lanes;
                    const T* const own = from.cell(n * from.blocks_of_sample() + j / from.lanes, 0, h) + j % from.lanes;
                    for (std::ptrdiff_t w = 0; w < to.width; ++w) row[w * to.lanes] = own[w * from.lanes];
                }
        return;
    }
    if (to.bare() && from.bare()) {
        parallel(to.blocks(), double(count) * to.channel() * to.blocks(), [&](int b) {
            std::copy_n(from.cell(b, first_from, 0), count * from.channel(), to.cell(b, first_to, 0));
        });
        return;
    }
    parallel(to.blocks() * count, double(count) * to.channel() * to.blocks(), [&](int task) {
        const int b = task / count, c = task % count;
        for (int h = 0; h < to.height; ++h)
            std::copy_n(from.cell(b, first_from + c, h), to.used(), to.cell(b, first_to + c, h));
    });
}

}  // namespace
}  // namespace sharedgrad
