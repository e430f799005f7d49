// Maps in blocks (⌈N/L⌉, C, H, W, L): the samples of a block lie side by side, and each vector holds L of them.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "pack.hpp"
#include "threads.hpp"
#include "tiles.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

enum Slot { kBlocks, kDeltas, kWeights, kTaps, kZeros, kRows, kSums, kStarts };

template <typename T>
T* memory(Slot slot, std::size_t elements) {
    return static_cast<T*>(scratch(slot, elements * sizeof(T)));
}

// A map (N, C, H, W) interleaved into blocks, with zeros around it.
template <typename T>
struct Blocks {
    T* data;
    int channels, height, width;  // with the margins
    std::ptrdiff_t row() const { return std::ptrdiff_t(width) * kLanes<T>; }
    std::ptrdiff_t channel() const { return row() * height; }
    std::ptrdiff_t block() const { return channel() * channels; }
};

struct Margins {
    int top, bottom, left, right;
};

template <typename T>
Blocks<T> interleaved(Slot slot, const T* x, int samples, int channels, int height, int width, Margins m) {
    constexpr int L = kLanes<T>;
    const int blocks = ceil_div(samples, L);
    Blocks<T> b{nullptr, channels, height + m.top + m.bottom, width + m.left + m.right};
    b.data = memory<T>(slot, blocks * b.block());
    T* zeros = memory<T>(kZeros, width);
    std::fill_n(zeros, width, T(0));
    parallel(blocks * channels, double(samples) * channels * height * width, [=](int task) {
        const int first = task / channels * L, c = task % channels;
        T* map = b.data + task * b.channel();
        std::fill_n(map, m.top * b.row(), T(0));
        for (int h = 0; h < height; ++h) {
            const T* from[L];
            for (int l = 0; l < L; ++l) {
                const std::ptrdiff_t sample = first + l;
                from[l] = sample < samples ? x + ((sample * channels + c) * height + h) * width : zeros;
            }
            T* row = map + (m.top + h) * b.row();
            std::fill_n(row, m.left * L, T(0));
            interleave(row + m.left * L, from, width);
            std::fill_n(row + (m.left + width) * L, m.right * L, T(0));
        }
        std::fill_n(map + (m.top + height) * b.row(), m.bottom * b.row(), T(0));
    });
    return b;
}

// The input with all the zeros around it that windows reach.
template <typename T>
Blocks<T> padded_input(const T* x, const Geometry& g) {
    const auto after = [](int out, int stride, int kernel, int dilation, int pad, int size) {
        return std::max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - pad - size);
    };
    const int bottom = after(g.out_h, g.stride_h, g.kernel_h, g.dilation_h, g.pad_h, g.height);
    const int right = after(g.out_w, g.stride_w, g.kernel_w, g.dilation_w, g.pad_w, g.width);
    return interleaved(kBlocks, x, g.samples, g.channels, g.height, g.width, {g.pad_h, bottom, g.pad_w, right});
}

// Where each weight of a filter meets its window, seen from the window's first cell.
template <typename T>
const std::ptrdiff_t* input_taps(const Blocks<T>& in, const Geometry& g) {
    const int group_channels = g.channels / g.groups;
    auto* taps = memory<std::ptrdiff_t>(kTaps, std::size_t(group_channels) * g.kernel_h * g.kernel_w);
    for (int c = 0, t = 0; c < group_channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j, ++t)
                taps[t] = c * in.channel() + i * g.dilation_h * in.row() + std::ptrdiff_t(j) * g.dilation_w * kLanes<T>;
    return taps;
}

// Write a row of a tile of channels, interleaved, to the samples' own maps.
template <typename T>
void separate_row(T* y, const T* row, int first, int samples, int channels, int channel, int filters, int height, int h,
                  int width) {
    constexpr int L = kLanes<T>;
    const int lanes = std::min(L, samples - first);
    for (int f = 0; f < filters; ++f) {
        T* to[L];
        for (int l = 0; l < lanes; ++l)
            to[l] = y + ((std::ptrdiff_t(first + l) * channels + channel + f) * height + h) * width;
        separate(to, row + std::ptrdiff_t(f) * width * L, width, lanes);
    }
}

}  // namespace
}  // namespace sharedgrad
