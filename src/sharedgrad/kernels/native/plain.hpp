// 1×1 convolutions of plain arrays (N, C, H, W) as they lie: sample by sample a product of matrices. Going into blocks
// and back would take as long as the work.
#pragma once

#include "conv_gradient.hpp"
#include "dense.hpp"

namespace sharedgrad {
namespace {

using PlainMemory = Owner<kCells, kParts>;

constexpr int kPlainParts = 8;  // of the samples, each with weight gradients of its own

template <typename T>
bool plain_pointwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    return small.lanes == 1 && big.lanes == 1 && small.bare() && big.bare() && g.groups == 1 &&
           g.kernel_h * g.kernel_w == 1 && !g.pad_h && !g.pad_w;
}

// The cells of a sample that 1×1 windows see: (channels, cells), itself at stride 1.
template <typename T>
Rows<const T> seen(const Map<T>& x, int sample, const Map<T>& y, const Window& g) {
    const T* const from = x.cell(sample, 0, 0);
    const std::ptrdiff_t cells = std::ptrdiff_t(y.height) * y.width;
    if (g.stride_h * g.stride_w == 1 && x.height == y.height && x.width == y.width) return {from, cells};
    T* to = PlainMemory::memory<T, kCells>(x.channels * cells);
    const Rows<const T> all{to, cells};
    for (int c = 0; c < x.channels; ++c)
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) *to++ = x.cell(sample, c, h * g.stride_h)[w * g.stride_w];
    return all;
}

template <typename T>
void plain_pointwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g) {
    const int cells = y.height * y.width;
    parallel(y.samples, y.operations() * x.channels / 8, [&](int n) {
        product<T, false, false>({y.cell(n, 0, 0), cells}, {nullptr, bias}, {w, x.channels}, seen(x, n, y, g),
                                 y.channels, cells, x.channels);
    });
}

template <typename T>
void plain_pointwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Window& g, bool add) {
    const int cells = dy.height * dy.width, step = g.stride_h * g.stride_w;
    const bool whole = step == 1 && dx.height == dy.height && dx.width == dy.width;
    parallel(dx.samples, dx.operations() * dy.channels / 8, [&](int n) {
        T* const to = whole ? dx.cell(n, 0, 0) : PlainMemory::memory<T, kCells>(std::size_t(dx.channels) * cells);
        product<T, true, false>({to, cells}, {nullptr, nullptr, whole && add}, {w, dx.channels},
                                {dy.cell(n, 0, 0), cells}, dx.channels, cells, dy.channels);
        for (int c = 0; !whole && c < dx.channels; ++c) {
            if (!add) std::fill_n(dx.cell(n, c, 0), dx.channel(), T(0));
            for (int h = 0; h < dy.height; ++h)
                for (int k = 0; k < dy.width; ++k)
                    dx.cell(n, c, h * g.stride_h)[k * g.stride_w] +=
                        to[(std::ptrdiff_t(c) * dy.height + h) * dy.width + k];
        }
    });
}

template <typename T>
void plain_pointwise_weight_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    const int cells = dy.height * dy.width;
    const EvenRanges parts(dy.samples, ceil_div(dy.samples, kPlainParts));
    const std::ptrdiff_t size = std::ptrdiff_t(dy.channels) * x.channels;
    T* const sums = PlainMemory::memory<T, kParts>(size * parts.count);
    parallel(parts.count, dy.operations() * x.channels / 8, [&](int part) {
        for (int n = parts.begin(part); n < parts.begin(part + 1); ++n)
            product<T, false, true>({sums + part * size, x.channels}, {nullptr, nullptr, n > parts.begin(part)},
                                    {dy.cell(n, 0, 0), cells}, seen(x, n, dy, g), dy.channels, x.channels, cells);
    });
    add_parts(dw, sums, parts.count, size);
}

}  // namespace
}  // namespace sharedgrad
