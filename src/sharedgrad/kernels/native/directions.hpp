// What a few directions show of the channels of maps, and the channels' squares, in one pass over the maps:
//
//   squares[m, s] = Σ_c x[m, c, s]²        seen[m, k, s] = Σ_c d[m mod groups, c, k] · x[m, c, s]
//
// Maps m are the groups of all samples, one sample after the other. Channels are added in their order.
#pragma once

#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

constexpr int kCellsAtOnce = 256;  // sums of so many cells stay in the nearest cache while the channels pass

// R channels of up to a vector of cells, added to their sums, which lie together: the squares', then each direction's.
template <int R, typename T>
inline void add_channels(T* sums, const T* x, const T* directions, int cells, int count) {
    Vector<T> v[R];
    for (int r = 0; r < R; ++r) v[r] = load_part(x + std::ptrdiff_t(r) * cells, count);
    Vector<T> sum = load(sums);
    for (int r = 0; r < R; ++r) sum += v[r] * v[r];
    store(sums, sum);
    for (int k = 0; k < kDirections; ++k) {
        T* const to = sums + (k + 1) * kCellsAtOnce;
        sum = load(to);
        for (int r = 0; r < R; ++r) sum += splat(directions[r * kDirections + k]) * v[r];
        store(to, sum);
    }
}

// squares (N, groups, S), seen (N, groups, 8, S), x (N, groups, C, S), directions (groups, C, 8)
template <typename T>
void along_directions(T* squares, T* seen, const Map<T>& x, const T* directions) {
    const int samples = x.samples, groups = x.channels, channels = x.height, cells = x.width;
    constexpr int W = kWidth<T>, R = 4;
    static_assert(kCellsAtOnce % W == 0, "vectors fill the sums");
    if (samples == 0 || groups == 0 || cells == 0) return;
    const EvenRanges ranges(cells, kCellsAtOnce);
    const double operations = 2.0 * (kDirections + 1) * samples * groups * channels * cells;
    parallel(samples * groups * ranges.count, operations, [=](int task) {
        const std::ptrdiff_t map = task / ranges.count;
        const int begin = ranges.begin(task % ranges.count), size = ranges.size(task % ranges.count);
        const T* const from = x.data + map * channels * cells + begin;
        const T* const d = directions + map % groups * channels * kDirections;
        alignas(64) T sums[(kDirections + 1) * kCellsAtOnce] = {};
        for (int c = 0; c < channels;) {
            const int some = channels - c >= R ? R : 1;
            for (int s = 0; s < size; s += W) {
                const T* const here = from + std::ptrdiff_t(c) * cells + s;
                const T* const turned = d + std::ptrdiff_t(c) * kDirections;
                const int count = std::min(W, size - s);
                some == R ? add_channels<R>(sums + s, here, turned, cells, count)
                          : add_channels<1>(sums + s, here, turned, cells, count);
            }
            c += some;
        }
        std::copy_n(sums, size, squares + map * cells + begin);
        for (int k = 0; k < kDirections; ++k)
            std::copy_n(sums + (k + 1) * kCellsAtOnce, size, seen + (map * kDirections + k) * cells + begin);
    });
}

}  // namespace
}  // namespace sharedgrad
