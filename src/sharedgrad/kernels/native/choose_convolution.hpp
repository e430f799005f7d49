// Which kernels carry out the three passes of a convolution.
#pragma once

#include "conv.hpp"
#include "conv_gradient.hpp"
#include "depthwise.hpp"
#include "maps.hpp"
#include "pointwise.hpp"
#include "small_maps.hpp"
#include "winograd_few.hpp"
#include "winograd_gradient.hpp"

namespace sharedgrad {
namespace {

// y = x ∗ w + bias, then perhaps ReLU
template <typename T>
void convolve(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    if (depthwise(y, x, g)) return depthwise_conv(y, x, w, bias, g, relu);
    if (pointwise(y, x, g)) return pointwise_conv(y, x, w, bias, g, relu);
    if (by_winograd(y, x, g, kFewChannels))
        return Winograd<T>(y, x, w, {g.pad_h, g.pad_w, false, bias, relu, false, nullptr, nullptr}).run();
    if (few_by_winograd(y, x, g))
        return WinogradFew<T>{y, x, w, {g.pad_h, g.pad_w, false, bias, relu, false, nullptr, nullptr}}.run();
    if (by_small_maps(y, x, g))
        return SmallMaps<T>{y,          x,          w,
                            g.kernel_h, g.kernel_w, {g.pad_h, g.pad_w, false, bias, relu, false, nullptr, nullptr}}
            .run();
    conv<T>(y, x, w, bias, g, relu, nullptr);
}

// The largest of each 2×2 outputs of an activation of x ∗ w + bias, and which of them it was.
template <typename T>
void convolve_pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x, const T* w, const T* bias,
                       const Window& g, int kind) {
    const FusedPool<T> after = fused_pool(y, winners, kind);
    Map<T> outputs = y;
    outputs.height *= 2, outputs.width *= 2;
    if (by_winograd(outputs, x, g, kFewChannels))
        Winograd<T>(outputs, x, w, {g.pad_h, g.pad_w, false, bias, false, false, nullptr, &after}).run();
    else
        conv(y, x, w, bias, g, false, &after);
}

// dx, or dx added to what is there; where `through` is the output of a ReLU, what flows back goes on through that.
template <typename T>
void input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g, bool add) {
    if (depthwise(dy, dx, g)) return depthwise_input_gradient(dx, dy, w, through, g, add);
    if (pointwise(dy, dx, g)) return pointwise_input_gradient(dx, dy, w, through, g, add);
    if (by_winograd(dx, dy, g, kFewChannels) && g.pad_h <= 2 && g.pad_w <= 2)
        return Winograd<T>(dx, dy, w, {2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr}).run();
    if (few_by_winograd(dx, dy, g) && g.pad_h <= 2 && g.pad_w <= 2)
        return WinogradFew<T>{dx, dy, w, {2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr}}.run();
    if (by_small_maps(dx, dy, g) && g.pad_h < g.kernel_h && g.pad_w < g.kernel_w)
        return SmallMaps<T>{
            dx,
            dy,
            w,
            g.kernel_h,
            g.kernel_w,
            {g.kernel_h - 1 - g.pad_h, g.kernel_w - 1 - g.pad_w, true, nullptr, false, add, through, nullptr}}
            .run();
    conv_input_gradient(dx, dy, w, g, add);
    if (through) activate_backward(dx, dx, *through, kReLU);
}

// dw and, where there is a bias, dbias, from upstream gradients dy at the pooled outputs y; of all samples or by sample
template <typename T>
void pooled_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& y, const Map<T>& winners, const Map<T>& x,
                            const Window& g, int kind, bool by_sample) {
    const FusedUnpool<T> from = fused_unpool(dy, y, winners, kind);
    Map<T> outputs = y;
    outputs.height *= 2, outputs.width *= 2;
    (by_sample ? conv_kernel_gradients_by_sample<T> : conv_kernel_gradient<T>)(dw, dbias, outputs, x, g, &from);
}

template <typename T>
bool finite(const T* from, std::ptrdiff_t count) {
    T sum = 0;
    for (std::ptrdiff_t i = 0; i < count; ++i) sum += from[i] * T(0);
    return sum == T(0);
}

template <typename T>
void winograd_kernel_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    WinogradGradient<T>(dy, x, g.pad_h, g.pad_w).run(dw);
    if (finite(dw, std::ptrdiff_t(9) * dy.channels * x.channels)) return;
    conv_kernel_gradient<T>(dw, nullptr, dy, x, g, nullptr);  // the definition may do without Inf
}

// dw and, where there is a bias, dbias; of all samples or sample by sample
template <typename T>
void weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    if (!by_sample && pointwise(dy, x, g) && x.channels > kTileTaps)
        return pointwise_weight_gradient(dw, dbias, dy, x, g);
    if (!by_sample && depthwise(dy, x, g)) return depthwise_weight_gradient(dw, dbias, dy, x, g);
    if (!by_sample && by_winograd(dy, x, g, kFewSummed))
        winograd_kernel_gradient(dw, dy, x, g);
    else if (!by_sample && gradient_by_small_maps(dy, x, g))
        small_maps_gradient(dw, dy, x, g);
    else if (by_sample)
        conv_kernel_gradients_by_sample<T>(dw, nullptr, dy, x, g, nullptr);
    else
        conv_kernel_gradient<T>(dw, nullptr, dy, x, g, nullptr);
    if (dbias) channel_sums(dbias, dy, by_sample);
}

}  // namespace
}  // namespace sharedgrad
