// Convolutions of stride 1 with many kernels, for few samples of small maps, and their weight gradients.
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

// Rows are short: calling memcpy for each takes longer than copying it.
template <typename T>
inline void copy_row(T* to, const T* from, std::ptrdiff_t count) {
    constexpr int V = kWidth<T>;
    if (count < V) return store_part(to, load_part(from, int(count)), int(count));
    for (std::ptrdiff_t i = 0; i + V < count; i += V) store(to + i, load(from + i));
    store(to + count - V, load(from + count - V));
}

// The inputs of outputs in rows of so many numbers: [block][channel][column of the kernel][row][column of the output],
// and some vectors that may be read beyond their end
template <typename T>
const T* small_map_copies(const Map<T>& in, std::ptrdiff_t row, int height, int kernel_h, int kernel_w, int pad_h,
                          int pad_w) {
    const std::ptrdiff_t channel = row * (height + kernel_h - 1) * kernel_w;
    T* const all = SmallMapsMemory::memory<T, kInputs>(channel * in.channels * in.blocks() + kTileColumns * kWidth<T>);
    parallel(in.blocks() * in.channels, double(channel) * in.channels / 4, [&](int task) {
        T* to = all + task * channel;
        for (int j = 0; j < kernel_w; ++j)
            for (int i = 0; i < height + kernel_h - 1; ++i, to += row)
                copy_row(
                    to,
                    in.cell(task / in.channels, task % in.channels, i - pad_h) + std::ptrdiff_t(j - pad_w) * in.lanes,
                    row);
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

// ---- weight gradient

using SmallMapsGradientMemory = Owner<kInputs, kTaps, kCells>;

constexpr int kManySums = 64;    // kernels, for which the copies pay
constexpr int kTilesAtOnce = 4;  // tiles of filters that pass over the copies at once

template <typename T>
bool gradient_by_small_maps(const Map<T>& dy, const Map<T>& x, const Window& g) {
    return dy.blocks() == 1 && dy.lanes < kWidth<T> && g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 &&
           g.dilation_w == 1 && g.groups == 1 && std::ptrdiff_t(x.channels) * dy.channels >= kManySums;
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
    const EvenRanges filters(dy.channels, kTileDeltas), tiles(count, kTileTaps), groups(filters.count, kTilesAtOnce);
    const int whole = int(size / V), rest = int(size % V);
    const std::ptrdiff_t apart = std::ptrdiff_t(whole + 1) * V;  // so that vectors do not lie across cache lines
    parallel(groups.count, operations(dy, x, g), [&](int task) {
        const int begin = groups.begin(task), end = groups.begin(task + 1), first = filters.begin(begin);
        T* const deltas = SmallMapsGradientMemory::memory<T, kCells>((filters.begin(end) - first) * apart);
        for (int f = first; f < filters.begin(end); ++f)
            for (int h = 0; h < dy.height; ++h) copy_row(deltas + (f - first) * apart + h * row, dy.cell(0, f, h), row);
        for (int k = 0; k < tiles.count; ++k)
            for (int i = begin; i < end; ++i) {
                const int t = tiles.begin(k), K = tiles.size(k), filter = filters.begin(i), F = filters.size(i);
                const T* const from = deltas + (filter - first) * apart;
                alignas(64) T sums[kTileDeltas * kTileTaps * V];
                const auto add = [&](std::ptrdiff_t at, int vectors, int last, bool resume) {
                    outer<T>(F, K,
                             {sums, std::ptrdiff_t(K) * V, from + at, apart, 0, inputs + at, V, 0, taps + t, 1, vectors,
                              last, resume});
                };
                if (whole) add(0, whole, V, false);
                if (rest) add(std::ptrdiff_t(whole) * V, 1, rest, whole > 0);
                sum_each(sums, F * K);
                for (int f = 0; f < F; ++f)
                    for (int j = 0; j < K; ++j) dw[std::ptrdiff_t(filter + f) * count + t + j] = sums[f * K + j];
            }
    });
}

}  // namespace
}  // namespace sharedgrad
