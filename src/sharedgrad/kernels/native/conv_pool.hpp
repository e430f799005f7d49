// A convolution with an activation and 2×2 max pooling behind it: a window's four outputs are pooled in registers.
#pragma once

#include "conv.hpp"
#include "pool_2x2.hpp"

namespace sharedgrad {
namespace {

// A row of windows, for some filters.
template <typename T>
struct ConvWindows {
    const T* x;                  // of the first output, where the taps count from
    std::ptrdiff_t row, column;  // to the outputs below and beside it
    const std::ptrdiff_t* taps;  // (count)
    int count;
    const T *w, *bias;  // (count, F); (F) or null
    T *y, *winners;     // of the first filter; winners may be null
    std::ptrdiff_t y_channel, winners_channel;
    int windows;
};

template <typename T, int Kind>
struct ConvWindowsTile {
    template <int F, int>
    static void run(const ConvWindows<T>& p) {
        const ConvWindows<T> own = p;
        T *y = own.y, *winners = own.winners;
        const T* x[4] = {own.x, own.x + own.column, own.x + own.row, own.x + own.row + own.column};
        for (int v = own.windows; v > 0; --v, y += kWidth<T>) {
            Vector<T> sum[F][4];
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
                for (int c = 0; c < 4; ++c) sum[f][c] = splat(own.bias ? own.bias[f] : T(0));
            add_taps(sum, x, own.taps, own.count, own.w);
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f) {
                const Largest<T> top = largest<Kind, T>(sum[f]);
                store(y + f * own.y_channel, top.y);
                if (winners) store(winners + f * own.winners_channel, top.winner);
            }
            for (int c = 0; c < 4; ++c) x[c] += 2 * own.column;
            if (winners) winners += kWidth<T>;
        }
    }
};

// y, and the winners if they are wanted, from x (N, C, *S), w (F, C/groups, *K) and bias (F)
template <typename T>
void conv_pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x, const T* w, const T* bias, const Window& g,
                   int kind) {
    constexpr int F = kTileSums / 4;
    const int filters = y.channels / g.groups, channels = x.channels / g.groups;
    const std::ptrdiff_t filter = std::ptrdiff_t(channels) * g.kernel_h * g.kernel_w;
    const View view = view_of_inputs(x, g);
    const Taps taps =
        taps_of(x, view, channels, channels, g.kernel_h * g.kernel_w, [&](int c) { return c * x.channel(); });
    const EvenRanges tiles(filters, F), rows(y.height, ceil_div(y.height, ceil_div(kTasks, y.blocks() * g.groups)));
    const T* const weights = packed(w, taps, g.groups, tiles, filters * filter, filter);
    const int row = channels * g.kernel_w;  // taps of one kernel row
    for_kind(kind, [&](auto k) {
        parallel(y.blocks() * g.groups * rows.count, 4 * operations(y, x, g), [&](int task) {
            const int group = task / rows.count % g.groups, block = task / rows.count / g.groups,
                      range = task % rows.count;
            for (int h = rows.begin(range); h < rows.begin(range + 1); ++h) {
                const auto [first, last] = view.rows.meeting(2 * h, 2 * h + 1);
                const T* const from = x.cell(block, group * channels, 2 * h * g.stride_h);
                for (int i = 0; i < tiles.count; ++i) {
                    const int f = group * filters + tiles.begin(i);
                    const T* const own = weights + f * filter + std::size_t(first) * row * tiles.size(i);
                    tile_for<ConvWindowsTile<T, k()>, F, 1>(tiles.size(i), 1)(
                        {from, g.stride_h * x.row(), g.stride_w * std::ptrdiff_t(kWidth<T>), taps.offsets + first * row,
                         (last - first) * row, own, bias ? bias + f : nullptr, y.cell(block, f, h),
                         winners ? winners->cell(block, f, h) : nullptr, y.channel(), winners ? winners->channel() : 0,
                         y.width});
                }
            }
        });
    });
}

}  // namespace
}  // namespace sharedgrad
