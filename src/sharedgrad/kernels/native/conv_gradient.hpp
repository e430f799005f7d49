// The weight gradient of a convolution: dw[f,t] = Σ_{samples,o} dy[f,o] · x[o·stride + t], see conv.hpp.
//
// The lanes of its sums are the samples' own gradients until the end: kept apart, they are stored instead of added.
#pragma once

#include "inner_loops.hpp"
#include "pack.hpp"
#include "pool_2x2.hpp"
#include "windows.hpp"

namespace sharedgrad {
namespace {

using KernelSumsMemory = Owner<kSums, kCells>;
using KernelGradientMemory = Owner<kParts>;
static_assert(disjoint<WindowMemory, KernelSumsMemory, KernelGradientMemory>());

constexpr int kMostParts = 4;                // of the samples, each with sums of its own
constexpr std::size_t kPartBytes = 4 << 20;  // of all parts' sums

// How the weight gradient is cut into tasks: by samples first, which a thread has had in the layers before; then so
// that the sums of one task stay in the second-level cache, and there are enough for the threads.
struct KernelTasks {
    EvenRanges parts, f_tiles, t_tiles, f_ranges, t_ranges;
    int count;
    KernelTasks(int filters, int taps, int groups, int blocks, std::size_t bytes)
        : parts(blocks, ceil_div(blocks, int(std::clamp<std::size_t>(kPartBytes / bytes, 1, kMostParts)))),
          f_tiles(filters, kTileDeltas),
          t_tiles(taps, kTileTaps),
          f_ranges(f_tiles.count, 4),
          t_ranges(t_tiles.count,
                   std::min(24, ceil_div(t_tiles.count, ceil_div(kTasks / 2, parts.count * groups * f_ranges.count)))),
          count(parts.count * groups * f_ranges.count * t_ranges.count) {}
    int part(int task) const { return task / (count / parts.count); }
};

// What a task has added up, of its own filters and taps of the whole kernel: [filter][tap][sample].
template <typename T>
struct KernelSums {
    int filter, filters, tap, taps;
    T* sums = nullptr;                                        // (filters, taps, lanes)
    T* bias = nullptr;                                        // (filters, lanes), where upstream gradients are spread
    std::ptrdiff_t weight(int f, int taps_of_filter) const {  // where row f begins in the kernel
        return std::ptrdiff_t(filter + f) * taps_of_filter + tap;
    }
    T* row(int f) const { return sums + std::ptrdiff_t(f) * taps * kWidth<T>; }
};

// The sums over all positions, each task's for a range of filters and taps.
template <typename T>
struct WeightGradient {
    const Map<T>&dy, &x;
    const Window& g;
    const FusedUnpool<T>* fused_unpool;  // where dy comes from, or null
    View view = view_of_inputs(x, g);
    Taps taps = taps_of(x, view, x.channels / g.groups, 1, 0, [this](int c) { return c * x.channel(); });
    int filters = dy.channels / g.groups;  // of one group
    std::ptrdiff_t kernel = std::ptrdiff_t(dy.channels) * taps.count();
    KernelTasks cut{filters, taps.count(), g.groups, dy.blocks(), kernel * sizeof(T)};

    // Upstream gradients of some filters in some rows.
    struct Deltas {
        const T* data;  // (filters, rows, columns, lanes)
        std::ptrdiff_t channel, row;
    };

    Deltas deltas(T* bias, int block, int first, int count, int h, int rows) const {
        if (!fused_unpool) return {dy.cell(block, first, h), dy.channel(), dy.row()};
        const std::ptrdiff_t channel = rows * dy.used();
        T* const to = KernelSumsMemory::memory<T, kCells>(count * channel);
        for (int f = 0; f < count; ++f) {
            const Vector<T> sum =
                fused_unpool->spread(*fused_unpool, to + f * channel, dy.used(), block, first + f, h / 2, rows / 2);
            store(bias + f * kWidth<T>, load(bias + f * kWidth<T>) + sum);
        }
        return {to, channel, dy.used()};
    }

    void positions(const KernelSums<T>& own, int block, int group, int f_begin, int f_end, int t_begin, int t_end,
                   bool resume) const {
        const int V = kWidth<T>;
        const int down = taps.view.rows.step, across = taps.view.columns.step;
        const int step = fused_unpool ? 2 : 1;  // rows that belong together
        const EvenRanges rows(dy.height / step, std::max(1, kPositions / dy.width / step));
        const int first = cut.f_tiles.begin(f_begin), tap = cut.t_tiles.begin(t_begin);
        if (fused_unpool && !resume) std::fill_n(own.bias, own.filters * V, T(0));
        for (int r = 0; r < rows.count; ++r)
            for (int i = f_begin; i < f_end; ++i) {
                const int f = cut.f_tiles.begin(i), size = cut.f_tiles.size(i), h = step * rows.begin(r);
                const int count = step * rows.size(r);
                const Deltas from = deltas(own.bias + (f - first) * V, block, group * filters + f, size, h, count);
                for (int k = t_begin; k < t_end; ++k) {
                    const int t = cut.t_tiles.begin(k);
                    outer<T>(size, cut.t_tiles.size(k),
                             {own.row(f - first) + (t - tap) * V, std::ptrdiff_t(own.taps) * V, from.data, from.channel,
                              from.row, x.cell(block, group * taps.channels, h * down), across * V, down * x.row(),
                              taps.offsets + t, count, dy.width, resume || r});
                }
            }
    }

    // finish(task, block, sums) after each block of samples, or once after all of a part.
    template <typename Finish>
    void run(bool by_block, const Finish& finish) const {
        parallel(cut.count, operations(dy, x, g), [&](int task) {
            const int t_range = task % cut.t_ranges.count, f_range = task / cut.t_ranges.count % cut.f_ranges.count;
            const int group = task / cut.t_ranges.count / cut.f_ranges.count % g.groups, part = cut.part(task);
            const int f_begin = cut.f_ranges.begin(f_range), f_end = cut.f_ranges.begin(f_range + 1);
            const int t_begin = cut.t_ranges.begin(t_range), t_end = cut.t_ranges.begin(t_range + 1);
            const int first = cut.f_tiles.begin(f_begin), tap = cut.t_tiles.begin(t_begin);
            KernelSums<T> own{group * filters + first, cut.f_tiles.begin(f_end) - first, tap,
                              cut.t_tiles.begin(t_end) - tap};
            const std::size_t size = std::size_t(own.filters) * own.taps * kWidth<T>;
            own.sums = KernelSumsMemory::memory<T, kSums>(size + own.filters * kWidth<T>);
            own.bias = own.sums + size;
            const int begin = cut.parts.begin(part), end = cut.parts.begin(part + 1);
            for (int block = begin; block < end; ++block) {
                positions(own, block, group, f_begin, f_end, t_begin, t_end, block > begin && !by_block);
                if (by_block || block == end - 1) finish(task, block, own);
            }
        });
    }
};

// to (size) = Σ over the parts of from (parts, size)
template <typename T>
void add_parts(T* to, const T* from, int parts, std::ptrdiff_t size) {
    for (std::ptrdiff_t i = 0; i < size; ++i) {
        T sum = from[i];
        for (int part = 1; part < parts; ++part) sum += from[part * size + i];
        to[i] = sum;
    }
}

// dw (F, C/groups, *K) of all samples, or (N, F, C/groups, *K) sample by sample; and dbias (F), or (N, F), if it is
// wanted, where upstream gradients are spread.
template <typename T>
void conv_kernel_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, const Window& g,
                          const FusedUnpool<T>* fused_unpool, bool by_sample) {
    constexpr int V = kWidth<T>;
    const WeightGradient<T> pass{dy, x, g, fused_unpool};
    const int taps = pass.taps.count(), count = pass.cut.parts.count;
    const std::ptrdiff_t kernel = pass.kernel;
    if (by_sample)
        return pass.run(true, [&](int, int block, const KernelSums<T>& own) {
            for (int f = 0; f < own.filters; ++f) {
                T* samples[V];
                for (int l = 0; l < dy.alive(block); ++l) {
                    const std::ptrdiff_t n = block * V + l;
                    samples[l] = dw + own.weight(f, taps) + n * kernel;
                    if (dbias && !own.tap) dbias[n * dy.channels + own.filter + f] = own.bias[f * V + l];
                }
                separate(samples, own.row(f), own.taps, dy.alive(block));
            }
        });
    T* const parts = KernelGradientMemory::memory<T, kParts>(count * (kernel + dy.channels));
    T* const biases = parts + count * kernel;
    pass.run(false, [&](int task, int, const KernelSums<T>& own) {
        const int part = pass.cut.part(task);
        sum_each(own.sums, std::ptrdiff_t(own.filters) * own.taps);
        for (int f = 0; f < own.filters; ++f) {
            std::copy_n(own.sums + std::ptrdiff_t(f) * own.taps, own.taps, parts + part * kernel + own.weight(f, taps));
            if (fused_unpool && !own.tap)
                biases[part * dy.channels + own.filter + f] = total<T>(load(own.bias + f * V));
        }
    });
    add_parts(dw, parts, count, kernel);
    if (dbias) add_parts(dbias, biases, count, dy.channels);
}

}  // namespace
}  // namespace sharedgrad
