// Convolution by channel and its input gradient: which way they take.
#pragma once

#include "by_channel.hpp"
#include "by_channel_winograd.hpp"

namespace sharedgrad {
namespace {

// ---- kernels prepared once, for passes that see the same weights again

enum PreparedFor { kNoWay, kSumsWay, kPointsWay };  // the first of a prepared kernel's numbers
constexpr int kHeader = 16;                         // numbers before the kernel itself

template <typename T>
PreparedFor prepared_for(int filters, int channels, int height, int width, const Window& g) {
    const int tiles = ceil_div(height, kOutputSide) * ceil_div(width, kOutputSide);
    return LanePoints<T>::serves(filters, channels, tiles, kFewTiles, g) ? kPointsWay : kSumsWay;
}

// Numbers that hold it, whichever way it takes.
template <typename T>
std::ptrdiff_t prepared_size(int filters, int channels, const Window& g) {
    const std::ptrdiff_t cells = three_by_three(g) ? kPoints : g.kernel_h * g.kernel_w;
    return kHeader + cells * channels * ceil_div(filters, kWidth<T>) * kWidth<T>;
}

// w (filters, channels, *K) for outputs of so many cells
template <typename T>
void prepare_kernel(T* to, const T* w, int filters, int channels, int height, int width, const Window& g) {
    const PreparedFor way = prepared_for<T>(filters, channels, height, width, g);
    to[0] = T(way);
    if (way == kSumsWay)
        LaneKernels<T>{filters, channels, g.kernel_h * g.kernel_w, false}.pack(to + kHeader, w);
    else
        LanePoints<T>{filters, channels, false}.transform(to + kHeader, w);
}

// ---- the passes

// y = x ∗ w + bias, then perhaps ReLU; w may be prepared already
template <typename T>
void conv_by_channel(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const T* prepared, const Window& g,
                     bool relu) {
    const Finish<T> last{g.pad_h, g.pad_w, false, bias, relu, false, nullptr, nullptr};
    const int way = prepared ? int(prepared[0]) : kNoWay;
    if (way != kSumsWay && LaneWinograd<T>{y, x, last}.run(w, way == kPointsWay ? prepared + kHeader : nullptr, g))
        return;
    const LaneKernels<T> kernels{y.lane_channels, x.lane_channels, g.kernel_h * g.kernel_w, false};
    const View view = view_of_inputs(x, g);
    const T* const packed = way == kSumsWay ? prepared + kHeader : kernels.packed(w);
    ByChannel<T>{y, x, kernels, packed, last, {0, 0, 1, 1, y.height, y.width}, lane_taps(x, view)}.run();
}

// dx, or dx added to what is there; where `through` is the output of a ReLU, what flows back goes on through that.
template <typename T>
void input_gradient_by_channel(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                               bool add) {
    const Finish<T> last{2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr};
    if (g.pad_h <= 2 && g.pad_w <= 2 && LaneWinograd<T>{dx, dy, last}.run(w, nullptr, g)) return;
    const int kernel = g.kernel_h * g.kernel_w, filters = dy.lane_channels;
    const LaneKernels<T> kernels{filters, dx.lane_channels, kernel, true};
    const T* const packed = kernels.packed(w);
    for (int a = 0; a < std::min(g.stride_h, dx.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, dx.width); ++b) {
            const View view = view_of_outputs(dy, g, a, b);
            const Cells phase{
                a, b, g.stride_h, g.stride_w, ceil_div(dx.height - a, g.stride_h), ceil_div(dx.width - b, g.stride_w)};
            ByChannel<T>{dx, dy, kernels, packed, last, phase, lane_taps(dy, view)}.run();
        }
}

}  // namespace
}  // namespace sharedgrad
