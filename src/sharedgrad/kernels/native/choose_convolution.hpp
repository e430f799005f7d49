// Which kernels carry out the passes of a convolution: of one table of strategies the first that serves.
#pragma once

#include "by_channel_gradient.hpp"
#include "by_channel_passes.hpp"
#include "conv.hpp"
#include "conv_gradient.hpp"
#include "conv_pool.hpp"
#include "depthwise.hpp"
#include "groups.hpp"
#include "maps.hpp"
#include "pointwise.hpp"
#include "winograd_by_sample.hpp"
#include "winograd_gradient.hpp"

namespace sharedgrad {
namespace {

enum Pass { kOutputs, kInputGradient, kWeightGradient, kBySample };  // the last is the weight gradient sample by sample

template <typename T>
struct Convolution {
    Pass pass;
    const Map<T>&small, &big;  // y or dy, and x or dx
    Window g;
    const T* w = nullptr;         // in the first two passes
    const T* bias = nullptr;      // in the first
    const T* prepared = nullptr;  // w once more, or null (by_channel_passes.hpp)
    bool relu = false;
    const Pooling<T>* pooling = nullptr;  // what takes the place of the outputs, or null
    bool add = false;                     // to the input gradient that is there
    const Map<T>* through = nullptr;      // the output of a ReLU that it goes back through, or null
    T *dw = nullptr, *dbias = nullptr;    // in the last two

    const Map<T>& out() const { return pass == kOutputs ? small : big; }  // in the first two
    const Map<T>& in() const { return pass == kOutputs ? big : small; }
    Finish<T> finish() const {
        if (pass == kOutputs) return {g.pad_h, g.pad_w, false, bias, relu, false, nullptr, pooling};
        return {2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr};
    }
};

template <typename T>
using C = const Convolution<T>&;

template <typename T>
struct Strategy {
    bool (*serves)(C<T> c);
    bool (*run)(C<T> c);  // false: the result would not be right, and another one has to
};

// For strategies that leave the bias's gradient to a pass of its own.
template <typename T>
bool with_bias(C<T> c) {
    if (c.dbias) channel_sums(c.dbias, c.small, c.pass == kBySample);
    return true;
}

template <typename T>
bool run_by_channel(C<T> c) {
    if (c.dw)
        weight_gradient_by_channel<T>(c.dw, c.small, c.big, c.g, c.pass == kBySample);
    else
        outputs_by_channel(c.out(), c.in(), c.w, c.prepared, c.finish(), c.g);
    return with_bias(c);
}

template <typename T>
bool run_lane_by_lane(C<T> c) {
    if (c.dw)
        weight_gradient_in_groups<T>(c.dw, c.small, c.big, c.g, c.pass == kBySample);
    else
        outputs_in_groups<T>({c.out(), c.in(), c.g, c.finish().turned}, c.w, c.finish());
    return with_bias(c);
}

template <typename T>
bool run_depthwise(C<T> c) {
    if (c.dw)
        depthwise_weight_gradient(c.dw, c.small, c.big, c.g);
    else
        depthwise_outputs(c.out(), c.in(), c.w, c.bias, c.g, c.finish().turned);
    return with_bias(c);
}

template <typename T>
bool run_pointwise(C<T> c) {
    const Runs<T> runs(c.small, c.big, c.g, c.through);
    const Matrix<const T> w{c.w, c.big.channels};
    if (c.dw)
        pointwise_weight_gradient(c.dw, runs);
    else
        multiply_cells<T>(runs, c.out(), c.in(), c.pass == kOutputs ? w : w.turned(), {nullptr, c.bias, c.add, c.relu},
                          c.through);
    return with_bias(c);
}

template <typename T>
bool filters_minimally(C<T> c) {
    const bool gradient = c.dw, padded = c.g.pad_h <= 2 && c.g.pad_w <= 2;
    return by_winograd(c.small, c.big, c.g, gradient ? kFewSummed : kFewChannels) &&
           (c.pass != kInputGradient || padded);
}

template <typename T>
bool run_minimal_filtering(C<T> c) {
    if (c.pass == kBySample) return RowGradient<T>{c.small, c.big, c.g.pad_h, c.g.pad_w, c.dw}.run() && with_bias(c);
    if (c.pass == kWeightGradient) {
        WinogradGradient<T>(c.small, c.big, c.g.pad_h, c.g.pad_w).run(c.dw);
        T* const end = c.dw + std::ptrdiff_t(9) * c.small.channels * c.big.channels;
        // the definition may do without what is not finite
        return std::all_of(c.dw, end, [](T v) { return std::isfinite(v); }) && with_bias(c);
    }
    Winograd<T>(c.out(), c.in(), c.w, c.finish()).run();
    return true;
}

template <typename T>
bool run_sums(C<T> c) {
    if (!c.dw) {
        conv_outputs(c.out(), c.in(), c.w, c.bias, c.g, c.finish().turned, c.add, c.relu);
        if (c.through) activate_backward(c.big, c.big, *c.through, kReLU);
    } else {
        conv_kernel_gradient<T>(c.dw, nullptr, c.small, c.big, c.g, nullptr, c.pass == kBySample);
    }
    return with_bias(c);
}

// Above each, what it gains on two AVX2 cores beside the table without it; batch 64 where nothing else is said.
template <typename T>
constexpr Strategy<T> kStrategies[] = {
    // a kernel for each channel, or few samples in groups: a step of `separable` takes 0.9 of the time
    {[](C<T> c) { return lane_by_lane(c.small, c.big, c.g) && (c.small.by_channel() || c.pass != kBySample); },
     run_lane_by_lane<T>},
    // few samples, in the order that is made for them: a step of the CNN with one sample takes 0.35 of it
    {[](C<T> c) { return c.small.by_channel(); }, run_by_channel<T>},
    // 1×1: a step of `separable` takes 0.75
    {[](C<T> c) { return pointwise(c.small, c.big, c.g) && c.pass != kBySample; }, run_pointwise<T>},
    // a kernel for each channel, alone: all three passes take 0.45 of the time in blocks, those of 5×5 0.85
    {[](C<T> c) { return c.big.plain(); }, run_depthwise<T>},
    // 3×3 of many channels: a step of VGG takes 0.45, of ResNet-20 0.6
    {filters_minimally<T>, run_minimal_filtering<T>},
    // sums over taps serve everything
    {[](C<T>) { return true; }, run_sums<T>},
};

template <typename T>
void carry_out(C<T> c) {
    for (const Strategy<T>& strategy : kStrategies<T>)
        if (strategy.serves(c) && strategy.run(c)) return;
}

// ---- with pooling behind it

// The largest of each 2×2 outputs of an activation of x ∗ w + bias, and which of them it was.
template <typename T>
void convolve_pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x, const T* w, const T* bias,
                       const Window& g, int kind) {
    const Pooling<T> after = pooling(y, winners, kind);
    Map<T> outputs = y;
    outputs.height *= 2, outputs.width *= 2;
    const Convolution<T> c{kOutputs, outputs, x, g, w, bias, nullptr, false, &after};
    if (filters_minimally<T>(c))
        run_minimal_filtering<T>(c);
    else
        conv_pool_2x2(y, winners, x, w, bias, g, kind);
}

// dw and, where there is a bias, dbias, from upstream gradients dy at the pooled outputs y; of all samples or by sample
template <typename T>
void pooled_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& y, const Map<T>& winners, const Map<T>& x,
                            const Window& g, int kind, bool by_sample) {
    const FusedUnpool<T> from = fused_unpool(dy, y, winners, kind);
    Map<T> outputs = y;
    outputs.height *= 2, outputs.width *= 2;
    conv_kernel_gradient(dw, dbias, outputs, x, g, &from, by_sample);
}

}  // namespace
}  // namespace sharedgrad
