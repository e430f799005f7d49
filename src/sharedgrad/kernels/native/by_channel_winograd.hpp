// 3×3 convolutions of stride 1 by channel with fewer multiplications: see winograd.hpp.
#pragma once

#include <atomic>

#include "by_channel.hpp"
#include "winograd.hpp"

namespace sharedgrad {
namespace {

using LaneWinogradMemory = Owner<kWeights, kInputs>;

constexpr int kEnoughTiles = 12, kFewTiles = 4;  // for which the kernels' points pay: made anew, or known already

// Kernels in their points, filters in the lanes: [part of the vectors][point][channel][vector][lane].
template <typename T>
struct LanePoints {
    static constexpr int V = kWidth<T>;
    int filters, channels;
    bool turned;
    EvenRanges parts{filters / V, kTileColumns};

    static bool serves(int filters, int channels, int tiles, int enough, const Window& g) {
        const int least = std::max(V, kFewChannels);
        return minimal_filtering && sizeof(T) == 4 && three_by_three(g) && channels % V == 0 && filters % V == 0 &&
               channels >= least && filters >= least && tiles >= enough;
    }

    std::size_t size() const { return std::size_t(kPoints) * filters * channels; }

    void transform(T* points, const T* w) const {
        parallel(filters / V, double(size()), [&](int v) { transform(points, w, v); });
    }

    void transform(T* points, const T* w, int v) const {
        const SmallKernels<T> by_filter = SmallKernels<T>::of(w, filters, channels, turned);
        const SmallKernels<T> kernels{w, by_filter.channel, by_filter.filter, turned};
        const int part = parts.of(v), size = parts.size(part);
        T* const to = points + (std::ptrdiff_t(kPoints) * channels * parts.begin(part) + v - parts.begin(part)) * V;
        for (int c = 0; c < channels; ++c)
            kernels.transform_lanes(to + std::ptrdiff_t(c) * size * V, std::ptrdiff_t(channels) * size * V, c, v * V,
                                    V);
    }
};

template <typename T>
struct LaneWinograd {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    Finish<T> last;
    int channels = in.lane_channels, vectors = out.blocks_of_sample();
    Tiling tiles{samples_of(out)};
    EvenRanges groups{tiles.count, kTileFilters}, parts{vectors, kTileColumns};
    std::ptrdiff_t inputs_point = std::ptrdiff_t(tiles.count) * channels + kAside<T>;

    static Map<T> samples_of(Map<T> m) {
        m.samples = m.blocks() / m.blocks_of_sample(), m.lanes = 1;
        return m;
    }

    // With weights as they are, or with points that are known already. False, and nothing done, where it does not
    // serve: too little work, or numbers that are too large for it.
    bool run(const T* w, const T* points, const Window& g) const {
        const int enough = points ? kFewTiles : kEnoughTiles;
        if (!LanePoints<T>::serves(out.lane_channels, channels, tiles.count, enough, g)) return false;
        const LanePoints<T> kernels{out.lane_channels, channels, last.turned};
        T* const own = points ? nullptr : LaneWinogradMemory::memory<T, kWeights>(kernels.size());
        T* const inputs = LaneWinogradMemory::memory<T, kInputs>(kPoints * inputs_point);
        const double work = double(tiles.count) * kPoints * channels * vectors;
        const int transforms = points ? 0 : vectors;
        std::atomic<bool> far{false};
        parallel(transforms + tiles.count, work, [&](int task) {
            if (task < transforms)
                kernels.transform(own, w, task);
            else if (transform(inputs, task - transforms))
                far = true;
        });
        if (far) return false;
        if (!points) points = own;
        parallel(parts.count * groups.count, work,
                 [&](int task) { multiply(points, inputs, task / groups.count, task % groups.count); });
        return true;
    }

    // A tile into [point][tile][channel]; whether its numbers are too large.
    bool transform(T* inputs, int tile) const {
        Tiling::Place at = tiles.place(tile);
        at.block *= in.blocks_of_sample();
        const Patch<T> patch(in, at, last.pad_h, last.pad_w);
        Vector<T> range = {};
        for (int b = 0; b < in.blocks_of_sample(); ++b)
            range += transform_input(inputs + std::ptrdiff_t(tile) * channels + b * V, inputs_point,
                                     patch.from + b * in.block(), in.row(), patch.rows, patch.columns);
        return any(range != range);
    }

    void multiply(const T* points, const T* inputs, int part, int group) const {
        const int count = groups.size(group), size = parts.size(part);
        const std::ptrdiff_t apart = std::ptrdiff_t(count) * size * V, own = std::ptrdiff_t(channels) * size * V;
        const T* const w = points + std::ptrdiff_t(kPoints) * channels * parts.begin(part) * V;
        alignas(64) T sums[kPoints * kTileFilters * kTileColumns * V];
        for (int p = 0; p < kPoints; ++p)
            tile_for<PointProduct<T>>(count, size)(
                sums + p * apart, w + p * own,
                inputs + p * inputs_point + std::ptrdiff_t(groups.begin(group)) * channels, channels, false);
        for (int t = 0; t < count; ++t)
            for (int v = 0; v < size; ++v)
                outputs(tiles.place(groups.begin(group) + t), parts.begin(part) + v, sums + (t * size + v) * V, apart);
    }

    void outputs(const Tiling::Place& at, int v, const T* sums, std::ptrdiff_t apart) const {
        const Vector<T> bias = last.bias ? load(last.bias + v * V) : Vector<T>{};
        Vector<T> y[kOutputSide][kOutputSide];
        transform_output(y, sums, apart);
        put_tile(y, bias, last.add, last.relu, out, last.through, at.block * vectors + v, 0, at);
    }
};

}  // namespace
}  // namespace sharedgrad
