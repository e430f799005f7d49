// The weight gradient by channel: dw[f,t] = Σ_o dy[f,o] · x[o·stride + t], filters in the lanes.
#pragma once

#include "by_channel.hpp"

namespace sharedgrad {
namespace {

constexpr int kDeltasAtOnce = 128;  // cells of upstream gradients, which stay in the first-level cache as taps go by
constexpr int kSumsAtOnce = 96;     // taps whose sums a task holds

// dw (F, C, *K) of all samples, or (N, F, C, *K) sample by sample
template <typename T>
void weight_gradient_by_channel(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr int V = kWidth<T>;
    const int vectors = dy.blocks_of_sample(), samples = dy.blocks() / vectors;
    const View view = view_of_inputs(x, g);
    const Taps taps = lane_taps(x, view, x.lane_channels);
    const int count = taps.count();
    const EvenRanges filters(vectors, kTileColumns), ranges(count, kSumsAtOnce);
    const EvenRanges rows(dy.height, std::max(1, kDeltasAtOnce / dy.width));
    parallel(filters.count * ranges.count, double(dy.blocks()) * dy.height * dy.width * count, [&](int task) {
        const int tile = task % filters.count, range = task / filters.count;
        const int first = filters.begin(tile), size = filters.size(tile), own = ranges.size(range);
        const EvenRanges tiles(own, rows_beside(size));
        T* const sums = ByChannelMemory::memory<T, kSums>(std::size_t(size) * own * V);
        for (int n = 0; n < samples; ++n) {
            for (int r = 0; r < rows.count; ++r)
                for (int i = 0; i < tiles.count; ++i) {
                    const int t = tiles.begin(i), k = tiles.size(i), h = rows.begin(r);
                    tile_for<Outer<T, true>, kTileDeltas, kMostRows>(size, k)(
                        {sums + t * V, std::ptrdiff_t(own) * V, dy.cell(n * vectors + first, 0, h), dy.block(),
                         dy.row(), x.cell(n * x.blocks_of_sample(), 0, h * g.stride_h),
                         std::ptrdiff_t(g.stride_w) * x.lanes, g.stride_h * x.row(),
                         taps.offsets + ranges.begin(range) + t, rows.size(r), dy.width, r || (n && !by_sample)});
                }
            if (!by_sample && n < samples - 1) continue;
            T* const to = dw + (by_sample ? std::size_t(n) * dy.lane_channels * count : 0) + ranges.begin(range);
            for (int v = 0; v < size; ++v) {
                const int f = (first + v) * V, alive = std::min(V, dy.lane_channels - f);
                T* kernels[V];
                for (int l = 0; l < alive; ++l) kernels[l] = to + std::ptrdiff_t(f + l) * count;
                separate(kernels, sums + std::ptrdiff_t(v) * own * V, own, alive);
            }
        }
    });
}

}  // namespace
}  // namespace sharedgrad
