// Convolutions of stride 1 with many kernels, for few samples of small maps, and their weight gradients.
//
// For each column of the kernel the input is copied without the cells that this column does not meet. Then the inputs
// of neighbouring outputs lie side by side beyond the ends of rows, and all lanes work. The weights are used too seldom
// to be packed: they are read where they are.
#pragma once

#include <array>
#include <utility>

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using SmallMapsMemory = Owner<kInputs, kTaps, kPlaces>;

constexpr int kFewOutputs = 256, kManyKernels = 64;  // for which packing these would take too long

template <typename T>
bool by_small_maps(const Map<T>& out, const Map<T>& in, const Window& g) {
    return in.lanes < kWidth<T> && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 &&
           g.groups == 1 && std::ptrdiff_t(in.channels) * out.channels >= kManyKernels &&
           out.height * out.used() <= kFewOutputs;
}

// sums (F, C, lanes), `apart` from filter to filter: Σ_t w[f][places[t]] · x[c][taps[t]] for F filters and C vectors
template <typename T, int F, int C>
void small_map_sums(T* sums, std::ptrdiff_t apart, const T* x, const std::ptrdiff_t* taps, const T* w,
                    std::ptrdiff_t filter, const std::ptrdiff_t* places, int count) {
    Vector<T> sum[F][C] = {};
    for (int t = 0; t < count; ++t) {
        Vector<T> v[C];
        for (int c = 0; c < C; ++c) v[c] = load(x + taps[t] + c * kWidth<T>);
        for (int f = 0; f < F; ++f) {
            const Vector<T> weight = splat(w[f * filter + places[t]]);
            for (int c = 0; c < C; ++c) sum[f][c] += weight * v[c];
        }
    }
    for (int f = 0; f < F; ++f)
        for (int c = 0; c < C; ++c) store(sums + f * apart + c * kWidth<T>, sum[f][c]);
}

template <typename T>
using SmallMapSums = void (*)(T*, std::ptrdiff_t, const T*, const std::ptrdiff_t*, const T*, std::ptrdiff_t,
                              const std::ptrdiff_t*, int);

template <typename T, int... FC>
constexpr std::array<SmallMapSums<T>, sizeof...(FC)> small_map_sums_of(std::integer_sequence<int, FC...>) {
    return {small_map_sums<T, FC / kTileColumns + 1, FC % kTileColumns + 1>...};
}

template <typename T>
constexpr auto kSmallMapSums = small_map_sums_of<T>(std::make_integer_sequence<int, kTileFilters * kTileColumns>());

// The inputs of outputs in rows of so many numbers: [block][channel][column of the kernel][row][column of the output],
// and some vectors that may be read beyond their end
template <typename T>
const T* small_map_copies(const Map<T>& in, std::ptrdiff_t row, int height, int kernel_h, int kernel_w, int pad_h,
                          int pad_w) {
    const std::ptrdiff_t channel = row * (height + kernel_h - 1) * kernel_w;
    T* const all =
        SmallMapsMemory::memory<T, kInputs>(channel * in.channels * in.blocks() + kTileColumns * kWidth<T>);
    parallel(in.blocks() * in.channels, double(channel) * in.channels / 4, [&](int task) {
        T* to = all + task * channel;
        for (int j = 0; j < kernel_w; ++j)
            for (int i = 0; i < height + kernel_h - 1; ++i, to += row)
                std::copy_n(in.cell(task / in.channels, task % in.channels, i - pad_h) +
                                std::ptrdiff_t(j - pad_w) * in.lanes,
                            row, to);
    });
    return all;
}

template <typename T>
struct SmallMaps {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const T* w;  // (F, C, kernel_h, kernel_w), or (C, F, …) where it is turned
    int kernel_h, kernel_w;
    Finish<T> last;
    std::ptrdiff_t row = out.used(), column = row * (out.height + kernel_h - 1), channel = column * kernel_w;
    int count = in.channels * kernel_h * kernel_w;

    const T* copies() const {
        return small_map_copies(in, row, out.height, kernel_h, kernel_w, last.pad_h, last.pad_w);
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
                     kSmallMapSums<T>[(size - 1) * kTileColumns + columns - 1](
                         sums, columns* V, x + block* in.channels* channel + begin, taps, w + first* filter, filter,
                         places, count);
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
            Vector<T> v = load_part(sums, n) + bias;
            if (last.add) v += load_part(to, n);
            if (last.relu) v = v <= T(0) ? Vector<T>{} : v;  // NaN stays NaN
            if (last.through) v = relu_gate<T>(v, load_part(last.through->cell(block, f, h) + begin - h * row, n));
            store_part(to, v, n);
            begin += n, sums += n;
        }
    }
};

// ---- weight gradient

using SmallMapsGradientMemory = Owner<kInputs, kTaps, kCells>;

template <typename T>
bool gradient_by_small_maps(const Map<T>& dy, const Map<T>& x, const Window& g) {
    return dy.lanes < kWidth<T> && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 &&
           g.groups == 1 && std::ptrdiff_t(x.channels) * dy.channels >= kManyKernels;
}

// dw (F, C, *K) of all samples, which fill less than a vector
template <typename T>
void small_maps_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const std::ptrdiff_t row = dy.used(), size = row * dy.height;
    const std::ptrdiff_t column = row * (dy.height + g.kernel_h - 1), channel = column * g.kernel_w;
    const T* const inputs = small_map_copies(x, row, dy.height, g.kernel_h, g.kernel_w, g.pad_h, g.pad_w);
    const int count = x.channels * g.kernel_h * g.kernel_w;
    auto* const taps = SmallMapsGradientMemory::memory<std::ptrdiff_t, kTaps>(count);
    for (int c = 0, t = 0; c < x.channels; ++c)
        for (int i = 0; i < g.kernel_h; ++i)
            for (int j = 0; j < g.kernel_w; ++j) taps[t++] = c * channel + j * column + i * row;
    const EvenRanges filters(dy.channels, kTileDeltas), tiles(count, kTileTaps);
    const int whole = int(size / V), rest = int(size % V);
    parallel(filters.count, operations(dy, x, g), [&](int task) {
        const int first = filters.begin(task), F = filters.size(task);
        T* const deltas = SmallMapsGradientMemory::memory<T, kCells>(F * size);
        for (int f = 0; f < F; ++f)
            for (int h = 0; h < dy.height; ++h) std::copy_n(dy.cell(0, first + f, h), row, deltas + f * size + h * row);
        for (int k = 0; k < tiles.count; ++k) {
            const int t = tiles.begin(k), K = tiles.size(k);
            alignas(64) T sums[kTileDeltas * kTileTaps * V];
            const auto add = [&](std::ptrdiff_t from, int vectors, int last, bool resume) {
                outer<T>(F, K,
                         {sums, std::ptrdiff_t(K) * V, deltas + from, size, 0, inputs + from, V, 0, taps + t, 1,
                          vectors, last, resume});
            };
            if (whole) add(0, whole, V, false);
            if (rest) add(std::ptrdiff_t(whole) * V, 1, rest, whole > 0);
            sum_each(sums, F * K);
            for (int f = 0; f < F; ++f) std::copy_n(sums + f * K, K, dw + std::ptrdiff_t(first + f) * count + t);
        }
    });
}

}  // namespace
}  // namespace sharedgrad
