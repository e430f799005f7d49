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

// ---- even and odd columns: of I lanes each, lying in two vectors one after the other

template <int I, int Odd, typename V, std::size_t... L>
inline V every_second(V a, V b, std::index_sequence<L...>) {
    return lanes_of<int((2 * (L / I) + Odd) * I + L % I)...>(a, b);
}

template <int I, int Second, typename V, std::size_t... L>
inline V alternate(V even, V odd, std::index_sequence<L...>) {
    constexpr int lanes = sizeof...(L);
    constexpr auto from = [](int lane) {
        const int column = (Second * lanes + lane) / I;
        return column % 2 * lanes + column / 2 * I + lane % I;
    };
    return lanes_of<from(int(L))...>(even, odd);
}

template <typename T, int I>
struct Columns {
    static constexpr int V = kWidth<T>;
    using Lanes = std::make_index_sequence<V>;

    // The first `count` numbers of each, from 2·count in a row.
    static void read(Vector<T>& even, Vector<T>& odd, const T* row, int count) {
        const Vector<T> a = I == V ? load(row) : load_part(row, std::min(V, 2 * count));
        const Vector<T> b = I == V ? load(row + V) : load_part(row + V, std::max(0, 2 * count - V));
        even = every_second<I, 0>(a, b, Lanes());
        odd = every_second<I, 1>(a, b, Lanes());
    }
    static void write(T* row, Vector<T> even, Vector<T> odd, int count) {
        const Vector<T> a = alternate<I, 0>(even, odd, Lanes()), b = alternate<I, 1>(even, odd, Lanes());
        if (I == V || 2 * count == 2 * V) {
            store(row, a);
            store(row + V, b);
            return;
        }
        store_part(row, a, std::min(V, 2 * count));
        store_part(row + V, b, std::max(0, 2 * count - V));
    }
};

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

// An activation and pooling that follow a convolution at once: what becomes of one window, for some channels.
template <typename T>
struct FusedPool {
    const Map<T>& y;
    const Map<T>* winners;
    // cells[channel][2×2], `apart` from channel to channel
    void (*pool)(const FusedPool& to, const T* cells, std::ptrdiff_t apart, int block, int first, int channels, int h,
                 int w);
};

template <int Kind, typename T>
void pool_window(const FusedPool<T>& to, const T* cells, std::ptrdiff_t apart, int block, int first, int channels,
                 int h, int w) {
    constexpr int V = kWidth<T>;
    T* y = to.y.cell(block, first, h) + std::ptrdiff_t(w) * V;
    T* won = to.winners ? to.winners->cell(block, first, h) + std::ptrdiff_t(w) * V : nullptr;
    const std::ptrdiff_t y_channel = to.y.channel(), won_channel = won ? to.winners->channel() : 0;
    for (int c = 0; c < channels; ++c, cells += apart, y += y_channel, won += won_channel) {
        Vector<T> x[4] = {load(cells), load(cells + V), load(cells + 2 * V), load(cells + 3 * V)};
        const Largest<T> top = largest<Kind, T>(x);
        store(y, top.y);
        if (won) store(won, top.winner);
    }
}

template <int Kind, typename T, int I>
void pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x) {
    parallel(y.blocks() * y.channels, x.operations(), [&](int task) {
        const int b = task / y.channels, c = task % y.channels;
        for (int h = 0; h < y.height; ++h) {
            const T* const in = x.cell(b, c, 2 * h);
            T* const out = y.cell(b, c, h);
            T* const won = winners ? winners->cell(b, c, h) : nullptr;
            for (std::ptrdiff_t i = 0; i < y.used(); i += kWidth<T>) {
                const int n = int(std::min<std::ptrdiff_t>(kWidth<T>, y.used() - i));
                Vector<T> cells[4];
                Columns<T, I>::read(cells[0], cells[1], in + 2 * i, n);
                Columns<T, I>::read(cells[2], cells[3], in + x.row() + 2 * i, n);
                const Largest<T> top = largest<Kind, T>(cells);
                store_part(out + i, top.y, n);
                if (won) store_part(won + i, top.winner, n);
            }
        }
    });
}

// ---- backward

// dx of one block's channel with its margins, and its sum over positions and samples.
template <int Kind, typename T, int I>
double pool_2x2_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& y, const Map<T>& winners, int b, int c) {
    clear_margins(dx, b, c);
    Vector<T> sum = {};
    for (int h = 0; h < y.height; ++h) {
        const T *up = dy.cell(b, c, h), *out = y.cell(b, c, h), *won = winners.cell(b, c, h);
        T* const back = dx.cell(b, c, 2 * h);
        for (std::ptrdiff_t i = 0; i < y.used(); i += kWidth<T>) {
            const int n = int(std::min<std::ptrdiff_t>(kWidth<T>, y.used() - i));
            const Vector<T> part = through<Kind, T>(load_part(up + i, n), load_part(out + i, n));
            const Vector<T> winner = load_part(won + i, n);
            Vector<T> cells[4];
            for (int k = 0; k < 4; ++k) cells[k] = winner == T(k) ? part : Vector<T>{};
            Columns<T, I>::write(back + 2 * i, cells[0], cells[1], n);
            Columns<T, I>::write(back + dx.row() + 2 * i, cells[2], cells[3], n);
            sum += part;
        }
        if (dx.width % 2)  // no window reaches the last column, nor the last row below
            for (int r = 0; r < 2; ++r) std::fill_n(back + r * dx.row() + 2 * y.used(), I, T(0));
    }
    if (dx.height % 2) std::fill_n(dx.cell(b, c, dx.height - 1), dx.used(), T(0));
    const Vector<T> own = columns_added<T>(sum, I);
    double all = 0;
    for (int l = 0; l < y.alive(b); ++l) all += own[l];
    return all;
}

// dx, and its sum over each channel if that is wanted.
template <int Kind, typename T, int I>
void pool_2x2_backward(const Map<T>& dx, T* sums, const Map<T>& dy, const Map<T>& y, const Map<T>& winners) {
    double* const parts = Pool2x2Memory::memory<double, kDoubles>(std::size_t(y.blocks()) * y.channels);
    parallel(y.blocks() * y.channels, 2 * dx.operations(), [&](int task) {
        parts[task] = pool_2x2_backward<Kind, T, I>(dx, dy, y, winners, task / y.channels, task % y.channels);
    });
    for (int c = 0; sums && c < y.channels; ++c) {
        double all = 0;
        for (int b = 0; b < y.blocks(); ++b) all += parts[b * y.channels + c];
        sums[c] = T(all);
    }
}

// Upstream gradients at pooled maps whose lanes all are samples, to be spread over the windows where they are used.
template <typename T>
struct FusedUnpool {
    const Map<T>&dy, &y, &winners;
    // to[row of cells][cell], for some rows of windows; their sum
    Vector<T> (*spread)(const FusedUnpool& from, T* to, int block, int c, int first, int rows);
};

template <int Kind, typename T>
Vector<T> spread_rows(const FusedUnpool<T>& from, T* to, int block, int c, int first, int rows) {
    constexpr int V = kWidth<T>;
    const std::ptrdiff_t row = 2 * from.y.used();
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
    constexpr decltype(FusedUnpool<T>::spread) spreads[] = {spread_rows<kIdentity, T>, spread_rows<kReLU, T>,
                                                            spread_rows<kSigmoid, T>, spread_rows<kTanh, T>};
    return {dy, y, winners, spreads[kind]};
}

// ---- for each activation and number of lanes

// function(kind, lanes), both as compile-time numbers
template <typename T, int I = 1, typename Function>
void for_kind_and_lanes(int kind, int lanes, const Function& function) {
    if constexpr (I < kWidth<T>)
        if (lanes != I) return for_kind_and_lanes<T, 2 * I>(kind, lanes, function);
    for_kind(kind, [&](auto k) { function(k, std::integral_constant<int, I>()); });
}

// For maps whose lanes all are samples.
template <typename T>
FusedPool<T> fused_pool(const Map<T>& y, const Map<T>* winners, int kind) {
    constexpr decltype(FusedPool<T>::pool) pools[] = {pool_window<kIdentity, T>, pool_window<kReLU, T>,
                                                      pool_window<kSigmoid, T>, pool_window<kTanh, T>};
    return {y, winners, pools[kind]};
}

template <typename T>
void pool_2x2(const Map<T>& y, const Map<T>* winners, const Map<T>& x, int kind) {
    for_kind_and_lanes<T>(kind, x.lanes, [&](auto k, auto lanes) { pool_2x2<k, T, lanes>(y, winners, x); });
}

template <typename T>
void pool_2x2_backward(const Map<T>& dx, T* sums, const Map<T>& dy, const Map<T>& y, const Map<T>& winners, int kind) {
    for_kind_and_lanes<T>(kind, y.lanes,
                          [&](auto k, auto lanes) { pool_2x2_backward<k, T, lanes>(dx, sums, dy, y, winners); });
}

}  // namespace
}  // namespace sharedgrad
