// The weight gradients of winograd_gradient.hpp sample by sample.
//
// The lanes are samples, so that nothing is added up over them. A sample has few tiles, and the sums in 36 points for
// each of its kernels would be more than a cache holds: so points are taken along rows alone, 6 multiplications where
// the definition has 12, and along columns the kernel's rows are taps as ever.
#pragma once

#include <atomic>

#include "conv_gradient.hpp"
#include "winograd_gradient.hpp"

namespace sharedgrad {
namespace {

using RowGradientMemory = Owner<kWeights, kInputs, kSums, kCells>;

constexpr std::size_t kRowInputs = 512 << 10;  // bytes of inputs' points that stay in the second-level cache

template <typename T>
struct RowGradient {
    static constexpr int V = kWidth<T>;
    const Map<T>&dy, &x;
    int pad_h, pad_w;
    T* dw;  // (N, F, C, 3, 3)
    int tiles = ceil_div(dy.width, kOutputSide), rows = dy.height + 2;
    std::ptrdiff_t row = std::ptrdiff_t(tiles) * V;
    EvenRanges channels{x.channels, std::max(1, int(kRowInputs / (kInputSide * rows * row * sizeof(T))))};
    EvenRanges filters{dy.channels, kTileDeltas};

    // Whether all are numbers: else the definition's sums may do without Inf.
    bool run() const {
        std::atomic<bool> finite = true;
        const EvenRanges shares(filters.count, ceil_div(filters.count, ceil_div(kTasks, dy.blocks() * channels.count)));
        parallel(dy.blocks() * channels.count * shares.count, operations(dy, x, {3, 3, 1, 1, 0, 0, 1, 1, 1}),
                 [&](int task) {
                     const int share = task % shares.count, range = task / shares.count % channels.count;
                     const int block = task / shares.count / channels.count;
                     if (!some(block, range, shares.begin(share), shares.begin(share + 1))) finite = false;
                 });
        return finite;
    }

    // Points of a row: to[point][tile] from the cells of which so many are there.
    template <int Cells, typename Points>
    void transform(T* to, std::ptrdiff_t apart, const T* from, int columns, const Points& points) const {
        for (int t = 0; t < tiles; ++t, from += kOutputSide * V) {
            Vector<T> d[Cells], u[kInputSide];
            for (int j = 0; j < Cells; ++j) d[j] = t * kOutputSide + j < columns ? load(from + j * V) : Vector<T>{};
            points(d, u);
            for (int p = 0; p < kInputSide; ++p) store(to + p * apart + t * V, u[p]);
        }
    }

    // The gradients of a range of channels and some tiles of filters.
    bool some(int block, int range, int begin, int end) const {
        const int first = channels.begin(range), count = channels.size(range), taps = 3 * count;
        const std::ptrdiff_t inputs_point = count * rows * row + kAside<T>;
        const std::ptrdiff_t deltas_filter = dy.height * row, deltas_point = kTileDeltas * deltas_filter + kAside<T>;
        T* const inputs = RowGradientMemory::memory<T, kInputs>(kInputSide * inputs_point);
        T* const deltas = RowGradientMemory::memory<T, kCells>(kInputSide * deltas_point);
        T* const sums = RowGradientMemory::memory<T, kSums>((kInputSide * kTileDeltas + 3) * taps * V);
        auto* const places = RowGradientMemory::memory<std::ptrdiff_t, kWeights>(taps);
        for (int c = 0; c < count; ++c) {
            for (int i = 0; i < 3; ++i) places[3 * c + i] = (c * rows + i) * row;
            for (int h = 0; h < rows; ++h)
                transform<kInputSide>(inputs + (c * rows + h) * row, inputs_point,
                                      x.cell(block, first + c, h - pad_h) - pad_w * V, x.width + x.right + pad_w,
                                      [](auto& d, auto& u) { input_points(d, u); });
        }
        const EvenRanges t_tiles(taps, kTileTaps);
        Vector<T> range_of = {};
        for (int i = begin; i < end; ++i) {
            const int size = filters.size(i);
            for (int f = 0; f < size; ++f)
                for (int h = 0; h < dy.height; ++h)
                    transform<kOutputSide>(deltas + f * deltas_filter + h * row, deltas_point,
                                           dy.cell(block, filters.begin(i) + f, h), dy.width,
                                           [](auto& d, auto& u) { upstream_points(d, u); });
            for (int p = 0; p < kInputSide; ++p)
                for (int k = 0; k < t_tiles.count; ++k)
                    outer<T>(size, t_tiles.size(k),
                             {sums + (p * size * taps + t_tiles.begin(k)) * V, std::ptrdiff_t(taps) * V,
                              deltas + p * deltas_point, deltas_filter, 0, inputs + p * inputs_point, V, 0,
                              places + t_tiles.begin(k), 1, dy.height * tiles, false});
            for (int f = 0; f < size; ++f) range_of += put(sums, f, size, taps, block, filters.begin(i) + f, first);
        }
        return !any(range_of != range_of);
    }

    // One filter's sums from points back to the kernel's cells, and to the samples; zero, or what is no number.
    Vector<T> put(T* sums, int f, int size, int taps, int block, int filter, int first) const {
        T* const cells = sums + kInputSide * kTileDeltas * taps * V;
        Vector<T> range = {};
        for (int t = 0; t < taps; ++t) {
            Vector<T> s[kInputSide], w[3];
            for (int p = 0; p < kInputSide; ++p) s[p] = load(sums + ((p * size + f) * taps + t) * V);
            kernel_cells(s, w);
            for (int j = 0; j < 3; ++j) store(cells + (3 * t + j) * V, w[j]);
            range += (w[0] + w[1] + w[2]) * T(0);
        }
        T* samples[V];
        for (int l = 0; l < dy.alive(block); ++l)
            samples[l] = dw + (std::ptrdiff_t(block * V + l) * dy.channels + filter) * x.channels * 9 + first * 9;
        separate(samples, cells, 3 * taps, dy.alive(block));
        return range;
    }
};

}  // namespace
}  // namespace sharedgrad
