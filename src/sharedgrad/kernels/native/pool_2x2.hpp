// An activation and the max pooling after it in windows of 2×2 that touch: maps half as high and wide.
//
// Only winners get a gradient, so the way back needs the pooled outputs and the number of each window's winner, and no
// map of full size is kept.
#pragma once

#include <limits>
#include <utility>

#include "maps.hpp"

namespace sharedgrad {
namespace {

using Pool2x2Memory = Owner<kDoubles>;

// ---- forward

// Whether a comparison holds in any lane.
template <typename Mask>
inline bool any(Mask mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    std::uint64_t words[sizeof mask / 8], all = 0;
    std::memcpy(words, &mask, sizeof mask);
    for (const auto word : words) all |= word;
    return all;
#endif
}

template <typename T>
struct Largest {
    Vector<T> y, winner;  // of four activations, and which of them has it first
};

// In full, for numbers that are close or are none.
template <int Kind, typename T>
[[gnu::noinline]] Largest<T> largest_of_all(Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) {
    using V = Vector<T>;
    V y[4] = {activated<Kind, T>(a), activated<Kind, T>(b), activated<Kind, T>(c), activated<Kind, T>(d)};
    const V top = larger(larger(y[0], y[1]), larger(y[2], y[3]));
    V winner = {};
    for (int i = 3; i >= 0; --i) winner = (y[i] == top) | (y[i] != y[i]) ? V{} + T(i) : winner;  // NaN is the largest
    return {top, winner};
}

// Where rounding may make the activation of another of four inputs equal to that of the largest: its slope there is
// so small, or the inputs are so close.
template <int Kind, typename T>
inline auto close(const Vector<T> (&x)[4], Vector<T> top, Vector<T> y) {
    using V = Vector<T>;
    using Bits = typename VectorOf<std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>::type;
    Bits least = ~Bits{};  // distance, less one as a number of bits: equal inputs are then the farthest
    for (const V& v : x) {
        const V distance = top - v;
        Bits bits;
        std::memcpy(&bits, &distance, sizeof bits);
        bits -= 1;
        least = bits < least ? bits : least;
    }
    least += 1;
    V distance;
    std::memcpy(&distance, &least, sizeof distance);
    const V small = (V{} + 8 * std::numeric_limits<T>::epsilon()) * (Kind == kSigmoid ? y : V{} + T(1));
    return (distance > T(0)) & (distance * through<Kind, T>(V{} + T(1), y) <= small);
}

// The same where all are numbers: the activation grows with its input, so that of the largest input will do.
template <int Kind, typename T>
inline Largest<T> largest(const Vector<T> (&x)[4]) {
    using V = Vector<T>;
    constexpr bool smooth = Kind == kSigmoid || Kind == kTanh;
    const auto right_above = x[1] > x[0], right_below = x[3] > x[2];
    const V above = right_above ? x[1] : x[0], below = right_below ? x[3] : x[2];
    const auto lower = below > above;
    const V top = lower ? below : above, y = activated<Kind, T>(top), sum = (x[0] + x[1]) + (x[2] + x[3]);
    auto unsure = sum != sum;
    if constexpr (smooth) unsure |= close<Kind, T>(x, top, y);
    if (any(unsure)) return largest_of_all<Kind, T>(x[0], x[1], x[2], x[3]);
    const V one = V{} + T(1);
    return {y, lower ? (right_below ? one + T(2) : one + T(1)) : (right_above ? one : V{})};
}

// Where the largest of windows go: the outputs, and which of the four they were, if that is wanted.
template <typename T>
struct Pooling {
    const Map<T>& y;
    const Map<T>* winners;
    // down × across windows of a channel, from (h, w) on; rows of cells lie so far from each other
    void (*pool)(const Pooling& to, const T* cells, std::ptrdiff_t row, int block, int c, int h, int w, int down,
                 int across);
};

template <int Kind, typename T>
void pool_windows(const Pooling<T>& to, const T* cells, std::ptrdiff_t row, int block, int c, int h, int w, int down,
                  int across) {
    constexpr int V = kWidth<T>;
    for (int i = h; i < h + down; ++i, cells += 2 * row) {
        T* const y = to.y.cell(block, c, i) + std::ptrdiff_t(w) * V;
        T* const winners = to.winners ? to.winners->cell(block, c, i) + std::ptrdiff_t(w) * V : nullptr;
        for (int j = 0; j < across; ++j) {
            const T *const above = cells + 2 * j * V, *const below = above + row;
            const Largest<T> top = largest<Kind, T>({load(above), load(above + V), load(below), load(below + V)});
            store(y + j * V, top.y);
            if (winners) store(winners + j * V, top.winner);
        }
    }
}

template <typename T>
Pooling<T> pooling(const Map<T>& y, const Map<T>* winners, int kind) {
    Pooling<T> to{y, winners, nullptr};
    for_kind(kind, [&](auto k) { to.pool = pool_windows<k(), T>; });
    return to;
}

template <typename T>
void pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x, int kind) {
    const Pooling<T> to = pooling(y, winners, kind);
    channels_of(y, x.operations(),
                [&](int b, int c) { to.pool(to, x.cell(b, c, 0), x.row(), b, c, 0, 0, y.height, y.width); });
}

// ---- backward

// Upstream gradients at pooled maps, to be spread over the windows where they are used.
template <typename T>
struct FusedUnpool {
    const Map<T>&dy, &y, &winners;
    // to[row of cells][cell], for some rows of windows; their sum
    Vector<T> (*spread)(const FusedUnpool& from, T* to, std::ptrdiff_t row, int block, int c, int first, int rows);
};

template <int Kind, typename T>
Vector<T> spread_rows(const FusedUnpool<T>& from, T* to, std::ptrdiff_t row, int block, int c, int first, int rows) {
    constexpr int V = kWidth<T>;
    Vector<T> sum = {};
    for (int h = first; h < first + rows; ++h, to += 2 * row) {
        const T *up = from.dy.cell(block, c, h), *out = from.y.cell(block, c, h), *won = from.winners.cell(block, c, h);
        for (int w = 0; w < from.y.width; ++w) {
            const Vector<T> part = through<Kind, T>(load(up + w * V), load(out + w * V)), winner = load(won + w * V);
            for (int k = 0; k < 4; ++k)
                store(to + k / 2 * row + (2 * w + k % 2) * V, winner == T(k) ? part : Vector<T>{});
            sum += part;
        }
    }
    return sum;
}

template <typename T>
FusedUnpool<T> fused_unpool(const Map<T>& dy, const Map<T>& y, const Map<T>& winners, int kind) {
    FusedUnpool<T> from{dy, y, winners, nullptr};
    for_kind(kind, [&](auto k) { from.spread = spread_rows<k(), T>; });
    return from;
}

// dx with its margins, and its sum over each channel if that is wanted.
template <typename T>
void pool_2x2_backward(const Map<T>& dx, T* sums, const Map<T>& dy, const Map<T>& y, const Map<T>& winners, int kind) {
    const FusedUnpool<T> from = fused_unpool(dy, y, winners, kind);
    double* const parts = Pool2x2Memory::memory<double, kDoubles>(std::size_t(y.blocks()) * y.channels);
    channels_of(y, 2 * dx.operations(), [&](int b, int c) {
        clear_margins(dx, b, c);
        const Vector<T> own = from.spread(from, dx.cell(b, c, 0), dx.row(), b, c, 0, y.height);
        for (int h = 0; dx.width % 2 && h < 2 * y.height; ++h)  // no window reaches the last column, nor the last row
            std::fill_n(dx.cell(b, c, h) + 2 * y.used(), dx.lanes, T(0));
        if (dx.height % 2) std::fill_n(dx.cell(b, c, dx.height - 1), dx.used(), T(0));
        double& all = parts[b * y.channels + c] = 0;
        for (int l = 0; l < y.alive(b); ++l) all += own[l];
    });
    for (int c = 0; sums && c < y.channels; ++c) {
        double all = 0;
        for (int b = 0; b < y.blocks(); ++b) all += parts[b * y.channels + c];
        sums[c] = T(all);
    }
}

}  // namespace
}  // namespace sharedgrad
