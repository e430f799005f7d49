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

// w (filters, channels, *K) for outputs of so many cells; `to` has room for either way (windows.py)
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
    const LaneTaps<T> taps(x, g);
    auto* places = ByChannelMemory::memory<std::ptrdiff_t, kPlaces>(taps.count);
    for (int t = 0; t < taps.count; ++t) places[t] = t;
    ByChannel<T>{y,          x,
                 kernels,    way == kSumsWay ? prepared + kHeader : kernels.packed(w),
                 last,       {0, 0, 1, 1, y.height, y.width},
                 g.stride_h, g.stride_w,
                 taps.cells, places,
                 taps.count}
        .run();
}

// dx, or dx added to what is there; where `through` is the output of a ReLU, what flows back goes on through that.
template <typename T>
void input_gradient_by_channel(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                               bool add) {
    const Finish<T> last{2 - g.pad_h, 2 - g.pad_w, true, nullptr, false, add, through, nullptr};
    if (g.pad_h <= 2 && g.pad_w <= 2 && LaneWinograd<T>{dx, dy, last}.run(w, nullptr, g)) return;
    const int kernel = g.kernel_h * g.kernel_w, filters = dy.lane_channels;
    auto *cells = ByChannelMemory::memory<std::ptrdiff_t, kTaps>(filters * kernel),
         *places = ByChannelMemory::memory<std::ptrdiff_t, kPlaces>(filters * kernel);
    const LaneKernels<T> kernels{filters, dx.lane_channels, kernel, true};
    const T* const packed = kernels.packed(w);
    for (int a = 0; a < std::min(g.stride_h, dx.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, dx.width); ++b) {
            const Phase rows(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
            const Phase columns(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
            int t = 0;
            for (int f = 0; f < filters; ++f)
                for (int i = 0; i < rows.count; ++i)
                    for (int j = 0; j < columns.count; ++j, ++t) {
                        cells[t] =
                            lane_of(dy, f) + rows.shift[i] * dy.row() + std::ptrdiff_t(columns.shift[j]) * dy.lanes;
                        places[t] = std::ptrdiff_t(f) * kernel + rows.cell[i] * g.kernel_w + columns.cell[j];
                    }
            const Cells phase{
                a, b, g.stride_h, g.stride_w, ceil_div(dx.height - a, g.stride_h), ceil_div(dx.width - b, g.stride_w)};
            ByChannel<T>{dx, dy, kernels, packed, last, phase, 1, 1, cells, places, t}.run();
        }
}

}  // namespace
}  // namespace sharedgrad
