// Depthwise convolution, each channel with a square kernel of its own, at stride 1: the weights stay in registers.
#pragma once

#include "conv.hpp"

namespace sharedgrad {
namespace {

template <typename T>
bool depthwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    return big.lanes == kWidth<T> && g.groups == big.channels && small.channels == big.channels &&
           g.stride_h * g.stride_w == 1 && g.dilation_h * g.dilation_w == 1 && g.kernel_h == g.kernel_w &&
           (g.kernel_h == 3 || g.kernel_h == 5);
}

// out[h, w] = Σ kernel[i, j] · in[h + down + i, w + right + j], the kernel perhaps turned around, + bias or what out
// holds; then perhaps ReLU, or zero where `through`, the output of a ReLU, is.
template <typename T, int K>
void depthwise_correlate(const Map<T>& out, const Map<T>& in, int down, int right, const T* w, bool turned,
                         const T* bias, bool add, bool relu, const Map<T>* through) {
    using V = Vector<T>;
    parallel(out.blocks() * out.channels, out.operations() * K, [&](int task) {
        const int b = task / out.channels, c = task % out.channels;
        V weights[K * K];
        for (int k = 0; k < K * K; ++k) weights[k] = splat(w[c * K * K + (turned ? K * K - 1 - k : k)]);
        const V first = splat(bias ? bias[c] : T(0));
        for (int h = 0; h < out.height; ++h) {
            const T* from = in.cell(b, c, h) + down * in.row() + right * kWidth<T>;
            const T* gate = through ? through->cell(b, c, h) : nullptr;
            T* to = out.cell(b, c, h);
            for (std::ptrdiff_t at = 0; at < out.used(); at += kWidth<T>) {
                V sum = add ? load(to + at) : first;
                for (int i = 0; i < K; ++i)
                    for (int j = 0; j < K; ++j)
                        sum += weights[i * K + j] * load(from + at + i * in.row() + j * kWidth<T>);
                if (relu) sum = sum <= T(0) ? V{} : sum;  // NaN stays NaN
                if (gate) sum = relu_gate<T>(sum, load(gate + at));
                store(to + at, sum);
            }
        }
    });
}

template <typename T>
void depthwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const auto run = g.kernel_h == 3 ? depthwise_correlate<T, 3> : depthwise_correlate<T, 5>;
    run(y, x, -g.pad_h, -g.pad_w, w, false, bias, false, relu, nullptr);
}

template <typename T>
void depthwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    const auto run = g.kernel_h == 3 ? depthwise_correlate<T, 3> : depthwise_correlate<T, 5>;
    run(dx, dy, g.pad_h - g.kernel_h + 1, g.pad_w - g.kernel_w + 1, w, true, nullptr, add, false, through);
}

template <typename T, int K>
void depthwise_kernel_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, const Window& g) {
    using V = Vector<T>;
    parallel(dy.channels, dy.operations() * K, [&](int c) {
        double totals[K * K + 1] = {};
        for (int b = 0; b < dy.blocks(); ++b) {
            V sums[K * K] = {}, sum = {};
            for (int h = 0; h < dy.height; ++h) {
                const T *from = x.cell(b, c, h) - g.pad_h * x.row() - g.pad_w * kWidth<T>, *up = dy.cell(b, c, h);
                for (std::ptrdiff_t at = 0; at < dy.used(); at += kWidth<T>) {
                    const V delta = load(up + at);
                    sum += delta;
                    for (int i = 0; i < K; ++i)
                        for (int j = 0; j < K; ++j)
                            sums[i * K + j] += delta * load(from + at + i * x.row() + j * kWidth<T>);
                }
            }
            for (int k = 0; k < K * K; ++k) totals[k] += total<T>(sums[k]);
            totals[K * K] += total<T>(sum);
        }
        for (int k = 0; k < K * K; ++k) dw[c * K * K + k] = T(totals[k]);
        if (dbias) dbias[c] = T(totals[K * K]);
    });
}

}  // namespace
}  // namespace sharedgrad
