// Convolutions of stride 1 with many kernels, for few samples of small maps.
//
// For each column of the kernel the input is copied without the cells that this column does not meet. Then the inputs
// of neighbouring outputs lie side by side beyond the ends of rows, and all lanes work. The weights are used too seldom
// to be packed: they are read where they are.
#pragma once

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using SmallMapsMemory = Owner<kInputs, kTaps, kPlaces>;

constexpr int kFewVectors = 16, kManyKernels = 256;  // of outputs, for which packing these would take too long

template <typename T>
bool by_small_maps(const Map<T>& out, const Map<T>& in, const Window& g) {
    return in.lanes < kWidth<T> && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 &&
           g.groups == 1 && std::ptrdiff_t(in.channels) * out.channels >= kManyKernels &&
           out.height * out.used() <= kFewVectors * kWidth<T>;
}

// sums (F, C, lanes) = Σ_t w[f][places[t]] · x[c][taps[t]]
template <typename T>
struct SmallMapSums {
    template <int F, int C>
    static void run(T* sums, const T* x, const std::ptrdiff_t* taps, const T* w, std::ptrdiff_t filter,
                    const std::ptrdiff_t* places, int count) {
        add_products<T, F, C>(
            sums, C * kWidth<T>, x, [=](std::ptrdiff_t k) { return taps[k]; }, w, filter,
            [=](std::ptrdiff_t k) { return places[k]; }, count, false);
    }
};

template <typename T>
struct SmallMaps {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const T* w;  // (F, C, kernel_h, kernel_w), or (C, F, …) where it is turned
    int kernel_h, kernel_w;
    Finish<T> last;
    std::ptrdiff_t row = out.used(), column = row * (out.height + kernel_h - 1), channel = column * kernel_w;
    int count = in.channels * kernel_h * kernel_w;

    // [block][channel][column of the kernel][row][column of the output]
    const T* copies() const {
        T* const all = SmallMapsMemory::memory<T, kInputs>(channel * in.channels * in.blocks() + kTileColumns * V);
        parallel(in.blocks() * in.channels, double(channel) * in.channels / 4, [&](int task) {
            T* to = all + task * channel;
            for (int j = 0; j < kernel_w; ++j)
                for (int i = 0; i < out.height + kernel_h - 1; ++i, to += row)
                    std::copy_n(in.cell(task / in.channels, task % in.channels, i - last.pad_h) +
                                    std::ptrdiff_t(j - last.pad_w) * in.lanes,
                                row, to);
        });
        return all;
    }

    void run() const {
        const T* const x = copies();
        auto *taps = SmallMapsMemory::memory<std::ptrdiff_t, kTaps>(count),
             *places = SmallMapsMemory::memory<std::ptrdiff_t, kPlaces>(count);
        const int cells = kernel_h * kernel_w;
        for (int c = 0, t = 0; c < in.channels; ++c)
            for (int i = 0; i < kernel_h; ++i)
                for (int j = 0; j < kernel_w; ++j, ++t) {
                    const int cell = i * kernel_w + j;
                    taps[t] = c * channel + j * column + i * row;
                    places[t] = last.turned ? std::ptrdiff_t(c) * out.channels * cells + cells - 1 - cell
                                            : std::ptrdiff_t(c) * cells + cell;
                }
        const std::ptrdiff_t filter = std::ptrdiff_t(cells) * (last.turned ? 1 : in.channels);
        const EvenRanges filters(out.channels, kTileFilters);
        const EvenRanges pieces(int((row * out.height + V - 1) / V), kTileColumns);
        parallel(out.blocks() * pieces.count * filters.count,
                 operations(out, in, {kernel_h, kernel_w, 1, 1, 0, 0, 1, 1, 1}), [&](int task) {
                     const int own = task % filters.count, piece = task / filters.count % pieces.count;
                     const int block = task / filters.count / pieces.count;
                     const int first = filters.begin(own), size = filters.size(own), columns = pieces.size(piece);
                     alignas(64) T sums[kTileFilters * kTileColumns * V];
                     const std::ptrdiff_t begin = std::ptrdiff_t(pieces.begin(piece)) * V;
                     tile_for<SmallMapSums<T>>(size, columns)(sums, x + block * in.channels * channel + begin, taps,
                                                              w + first * filter, filter, places, count);
                     for (int f = 0; f < size; ++f)
                         put(sums + f * columns * V, block, first + f, begin,
                             std::min(row * out.height, begin + columns * V));
                 });
    }

    // Outputs `begin` to `end` of a channel to their rows.
    void put(const T* sums, int block, int f, std::ptrdiff_t begin, std::ptrdiff_t end) const {
        const Vector<T> bias = splat(last.bias ? last.bias[f] : T(0));
        while (begin < end) {
            const int h = int(begin / row), n = int(std::min<std::ptrdiff_t>({V, end - begin, (h + 1) * row - begin}));
            T* const to = out.cell(block, f, h) + begin - h * row;
            const T* const gate = last.through ? last.through->cell(block, f, h) + begin - h * row : nullptr;
            store_part(to,
                       finished<T>(load_part(sums, n) + bias, last.add, last.relu, to, gate,
                                   [n](const T* from) { return load_part(from, n); }),
                       n);
            begin += n, sums += n;
        }
    }
};

}  // namespace
}  // namespace sharedgrad
