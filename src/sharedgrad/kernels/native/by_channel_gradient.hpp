// The weight gradient by channel: dw[f,t] = Σ_o dy[f,o] · x[o·stride + t], filters in the lanes.
#pragma once

#include "by_channel.hpp"

namespace sharedgrad {
namespace {

constexpr int kDeltasAtOnce = 128;  // cells of upstream gradients, which stay in the first-level cache as taps go by
constexpr int kSumsAtOnce = 96;     // taps whose sums a task holds

// sum[k][f] += Σ dy[f] · x[tap k] over some rows of cells, for K taps and F vectors of filters
template <typename T>
struct LaneOuter {
    T* sums;  // (F, taps, lanes), from the first tap on
    std::ptrdiff_t sums_vector;
    const T* dy;
    std::ptrdiff_t dy_vector, dy_row, dy_cell;
    const T* x;
    std::ptrdiff_t x_row, x_cell;
    const std::ptrdiff_t* taps;  // (K)
    int rows, columns;
    bool resume;
};

template <typename T>
struct LaneOuterTile {
    template <int K, int F>
    static void run(const LaneOuter<T>& p) {
        using V = Vector<T>;
        V sum[K][F];
        for (int k = 0; k < K; ++k)
            for (int f = 0; f < F; ++f) sum[k][f] = p.resume ? load(p.sums + f * p.sums_vector + k * kWidth<T>) : V{};
        for (int h = 0; h < p.rows; ++h) {
            const T* dy = p.dy + h * p.dy_row;
            const T* x = p.x + h * p.x_row;
            for (int w = 0; w < p.columns; ++w, dy += p.dy_cell, x += p.x_cell) {
                V delta[F];
                for (int f = 0; f < F; ++f) delta[f] = load(dy + f * p.dy_vector);
                for (int k = 0; k < K; ++k) {
                    const V v = splat(x[p.taps[k]]);
                    for (int f = 0; f < F; ++f) sum[k][f] += v * delta[f];
                }
            }
        }
        for (int k = 0; k < K; ++k)
            for (int f = 0; f < F; ++f) store(p.sums + f * p.sums_vector + k * kWidth<T>, sum[k][f]);
    }
};

// dw (F, C, *K) of all samples, or (N, F, C, *K) sample by sample
template <typename T>
void weight_gradient_by_channel(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr int V = kWidth<T>;
    const int vectors = dy.blocks_of_sample(), samples = dy.blocks() / vectors;
    const Slide at = slide_forward(dy, g);
    const Taps taps = at.taps(x, x.lane_channels);
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
                    tile_for<LaneOuterTile<T>>(k, size)(
                        {sums + t * V, std::ptrdiff_t(own) * V, dy.cell(n * vectors + first, 0, h), dy.block(),
                         dy.row(), dy.lanes, x.cell(n * x.blocks_of_sample(), 0, h * g.stride_h), g.stride_h * x.row(),
                         std::ptrdiff_t(g.stride_w) * x.lanes, taps.offsets + ranges.begin(range) + t, rows.size(r),
                         dy.width, r || (n && !by_sample)});
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
