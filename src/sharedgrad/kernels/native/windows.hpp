// Where the windows of a convolution find their cells, as taps: offsets into a map with margins.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

using WindowMemory = Owner<kTaps, kInputs>;

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
    T* split = WindowMemory::memory<T, kInputs>(size);
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
    const T* data;                             // (blocks, channels, rows, …) from the first window's first row on
    std::ptrdiff_t block, channel, row, step;  // from window to window: row by row, and vector by vector in a row
    const std::ptrdiff_t* taps;                // (count): channel of a group, kernel row, kernel column
    int count;
};

template <typename T>
Windows<T> windows(const Map<T>& x, const Window& g) {
    const bool split = phased(x, g);
    const int columns = phase_columns(x, g), group_channels = x.channels / g.groups;
    const std::ptrdiff_t row = split ? std::ptrdiff_t(g.stride_w) * columns * x.lanes : x.row();
    const std::ptrdiff_t channel = split ? row * (x.top + x.height + x.bottom) : x.channel();
    auto* taps = WindowMemory::memory<std::ptrdiff_t, kTaps>(std::size_t(group_channels) * g.kernel_h * g.kernel_w);
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

}  // namespace
}  // namespace sharedgrad
