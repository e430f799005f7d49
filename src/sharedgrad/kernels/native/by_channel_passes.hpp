// Convolution by channel and its input gradient: which way they take.
#pragma once

#include "by_channel.hpp"
#include "by_channel_winograd.hpp"

namespace sharedgrad {
namespace {

// ---- kernels prepared once, for passes that see the same weights again

enum PreparedFor { kNoWay, kSumsWay, kPointsWay };  // the first of a prepared kernel's numbers
constexpr int kHeader = 16;                         // numbers before the kernel itself

// w (filters, channels, *K) for outputs of so many cells; `to` has room for either way (windows.py)
template <typename T>
void prepare_kernel(T* to, const T* w, int filters, int channels, int height, int width, const Window& g) {
    const int tiles = ceil_div(height, kOutputSide) * ceil_div(width, kOutputSide);
    const bool points = LanePoints<T>::serves(filters, channels, tiles, kFewTiles, g);
    to[0] = T(points ? kPointsWay : kSumsWay);
    if (points)
        LanePoints<T>{filters, channels, false}.transform(to + kHeader, w);
    else
        LaneKernels<T>{filters, channels, g.kernel_h * g.kernel_w, false}.pack(to + kHeader, w);
}

// ---- the passes

// Outputs, or `turned` input gradients; w may be prepared already
template <typename T>
void outputs_by_channel(const Map<T>& out, const Map<T>& in, const T* w, const T* prepared, const Finish<T>& last,
                        const Window& g) {
    const int way = prepared ? int(prepared[0]) : kNoWay;
    const T* const points = way == kPointsWay ? prepared + kHeader : nullptr;
    const bool padded = last.pad_h >= 0 && last.pad_w >= 0;
    if (way != kSumsWay && padded && LaneWinograd<T>{out, in, last}.run(w, points, g)) return;
    const LaneKernels<T> kernels{(last.turned ? in : out).lane_channels, (last.turned ? out : in).lane_channels,
                                 g.kernel_h * g.kernel_w, last.turned};
    const T* const packed = way == kSumsWay ? prepared + kHeader : kernels.packed(w);
    each_slide(out, in, g, last.turned, [&](const Slide& at) {
        const Taps taps = lane_taps(in, at.view, in.lane_channels);
        ByChannel<T>{out, in, kernels, packed, last, at, taps}.run();
    });
}

}  // namespace
}  // namespace sharedgrad
