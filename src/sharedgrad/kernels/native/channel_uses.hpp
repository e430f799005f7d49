// Uses of the channels' scales and shifts, δ_u · x̂_u elementwise, with x̂ = a_c · x + b_c, or δ_u alone; in one pass:
//
//   t = δ · x̂ at (n, c, s)
//   squares[n, s] = Σ_c t²      products[n, s] = Σ_c v_c · t      totals[n, c] = Σ_s t
#pragma once

#include "directions.hpp"

namespace sharedgrad {
namespace {

// One channel of some cells: adds to the squares and products, gives the sum.
template <bool Alone, typename T>
T add_channel(T* squares, T* products, const T* delta, const T* x, T a, T b, T v, int size) {
    Vector<T> sum{};
    vectors_of<T>(size, [&](auto s, auto count, int) {
        Vector<T> t = load_part(delta + s, count);
        if constexpr (!Alone) t *= load_part(x + s, count) * splat(a) + splat(b);
        store(squares + s, load(squares + s) + t * t);
        store(products + s, load(products + s) + splat(v) * t);
        sum += t;
    });
    return total<T>(sum);
}

// delta (N, C, 1, S), coefficients (3, C): a, b, v; x may be null
template <typename T>
void channel_uses(T* squares, T* products, T* totals, const Map<T>& delta, const T* x, const T* coefficients) {
    const int samples = delta.samples, channels = delta.channels, cells = delta.width;
    if (samples == 0 || cells == 0) return;
    const EvenRanges ranges(cells, kCellsAtOnce);
    parallel(samples, 8.0 * samples * channels * cells, [=](int n) {
        T* const own = totals + std::ptrdiff_t(n) * channels;
        std::fill_n(own, channels, T(0));
        for (int range = 0; range < ranges.count; ++range) {
            const int begin = ranges.begin(range), size = ranges.size(range);
            alignas(64) T sums[2 * kCellsAtOnce] = {};
            for (int c = 0; c < channels; ++c) {
                const std::ptrdiff_t at = (std::ptrdiff_t(n) * channels + c) * cells + begin;
                const T a = coefficients[c], b = coefficients[channels + c], v = coefficients[2 * channels + c];
                own[c] += x ? add_channel<false>(sums, sums + kCellsAtOnce, delta.data + at, x + at, a, b, v, size)
                            : add_channel<true>(sums, sums + kCellsAtOnce, delta.data + at, x, a, b, v, size);
            }
            std::copy_n(sums, size, squares + std::ptrdiff_t(n) * cells + begin);
            std::copy_n(sums + kCellsAtOnce, size, products + std::ptrdiff_t(n) * cells + begin);
        }
    });
}

}  // namespace
}  // namespace sharedgrad
