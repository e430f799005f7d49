// Where the windows of a convolution find their cells, as taps: offsets into a map with margins.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

using WindowMemory = Owner<kTaps>;

constexpr int kTasks = 16;   // enough for the threads to share evenly, few enough to keep rows together
constexpr int kLines = 512;  // vectors of input that stay in the first-level cache while all filters use them
constexpr int kPositions = 6144 / kVectorBytes;  // likewise while all taps use them

// Multiplications of one pass, a vector's worth counted as one.
template <typename T>
double operations(const Map<T>& small, const Map<T>& big, const Window& g) {
    return small.operations() * (big.channels / g.groups) * g.kernel_h * g.kernel_w / 8;
}

// Windows over maps whose lanes are samples.
template <typename T>
struct Windows {
    const T* data;                             // (blocks, channels, rows, …) from the first window's first row on
    std::ptrdiff_t block, channel, row, step;  // from window to window: row by row, and vector by vector in a row
    const std::ptrdiff_t* taps;                // (count): channel of a group, kernel row, kernel column
    int count;
};

template <typename T>
Windows<T> windows(const Map<T>& x, const Window& g) {
    const int group_channels = x.channels / g.groups;
    auto* taps = WindowMemory::memory<std::ptrdiff_t, kTaps>(std::size_t(group_channels) * g.kernel_h * g.kernel_w);
    int t = 0;
    for (int c = 0; c < group_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j)
                taps[t++] = c * x.channel() + i * g.dilation_h * x.row() + std::ptrdiff_t(j) * g.dilation_w * x.lanes;
    return {x.cell(0, 0, -g.pad_h) - std::ptrdiff_t(g.pad_w) * x.lanes,
            x.block(),
            x.channel(),
            g.stride_h * x.row(),
            std::ptrdiff_t(g.stride_w) * x.lanes,
            taps,
            t};
}

}  // namespace
}  // namespace sharedgrad
