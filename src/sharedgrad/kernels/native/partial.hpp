// The end of a row that does not fill a vector, and the sums over the lanes of many vectors.
#pragma once

#include <algorithm>
#include <utility>

#include "vector.hpp"

namespace sharedgrad {
namespace {

// The first `count` numbers, and zeros; nothing beyond them is touched. At most a vector's width.
#if defined(__AVX512F__)
template <typename T>
inline Vector<T> load_part(const T* from, int count) {
    if constexpr (sizeof(T) == 4)
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
    else
        return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
}
template <typename T>
inline Vector<T> load_lanes(const T* from, Vector<T> lanes) {
    if constexpr (sizeof(T) == 4)
        return _mm512_maskz_loadu_ps(_mm512_movepi32_mask(_mm512_castps_si512(lanes)), from);
    else
        return _mm512_maskz_loadu_pd(_mm512_movepi64_mask(_mm512_castpd_si512(lanes)), from);
}
template <typename T>
inline void store_part(T* to, Vector<T> v, int count) {
    if constexpr (sizeof(T) == 4)
        _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), v);
    else
        _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), v);
}
#else
#if defined(__AVX2__)
alignas(64) constexpr std::int32_t kFirst[16] = {-1, -1, -1, -1,
                                                 -1, -1, -1, -1};  // from 8 − n on: n numbers are wanted

inline Vector<float> load_part(const float* from, int count) {
    return _mm256_maskload_ps(from, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirst + 8 - count)));
}
inline Vector<float> load_lanes(const float* from, Vector<float> lanes) {
    return _mm256_maskload_ps(from, _mm256_castps_si256(lanes));
}
#endif
// The numbers where `lanes` is negative, and zeros; nothing else is touched.
template <typename T>
inline Vector<T> load_lanes(const T* from, Vector<T> lanes) {
    return vector_of_lanes<T>([&](int l) { return lanes[l] < 0 ? from[l] : T(0); });
}
template <typename T>
inline Vector<T> load_part(const T* from, int count) {
    if (count == kWidth<T>) return load(from);
    T lanes[kWidth<T>] = {};
    for (int l = 0; l < count; ++l) lanes[l] = from[l];
    return load(lanes);
}
template <typename T>
inline void store_part(T* to, Vector<T> v, int count) {
    if (count == kWidth<T>) return store(to, v);
    T lanes[kWidth<T>];
    store(lanes, v);
    int at = 0;
    for (int half = kWidth<T> / 2; half; half /= 2)
        if (count & half) std::copy_n(lanes + at, half, to + at), at += half;
}
#endif

// The number of lanes of a vector that is full, where that is known when the code is compiled.
template <typename T>
struct Full {
    constexpr operator int() const { return kWidth<T>; }
};
template <typename T>
inline Vector<T> load_part(const T* from, Full<T>) {
    return load(from);
}
template <typename T>
inline void store_part(T* to, Vector<T> v, Full<T>) {
    store(to, v);
}

// The vectors of a row of so many numbers: function(offset, lanes that exist, which of `Turns` follows which).
template <typename T, int Turns = 1, typename Function>
inline void vectors_of(std::ptrdiff_t numbers, const Function& function) {
    constexpr int V = kWidth<T>;
    std::ptrdiff_t i = 0;
    for (; i + Turns * V <= numbers; i += Turns * V)
        for (int turn = 0; turn < Turns; ++turn) function(i + turn * V, Full<T>(), turn);
    for (; Turns > 1 && i + V <= numbers; i += V) function(i, Full<T>(), 0);
    if (i < numbers) function(i, int(numbers - i), 0);
}

// ---- between lanes

template <typename T>
constexpr auto kAllLanes = std::make_integer_sequence<int, kWidth<T>>();

// Of the lanes of two vectors every Step-th.
template <int Step, typename V, int... L>
inline V every(V a, V b, std::integer_sequence<int, L...>) {
    return lanes_of<(L * Step)...>(a, b);
}
// a's and b's in turn, from lane First on.
template <int First, typename V, int... L>
inline V in_turn(V a, V b, std::integer_sequence<int, L...>) {
    return lanes_of<(First + L / 2 + L % 2 * int(sizeof...(L)))...>(a, b);
}

// Of two vectors the blocks of D lanes that lie at even places, or with Odd at odd ones: a's and b's in turn.
template <int D, bool Odd, typename V, std::size_t... L>
inline V blocks_in_turn(V a, V b, std::index_sequence<L...>) {
    return lanes_of<int((L & D ? sizeof...(L) + L - D : L) + (Odd ? D : 0))...>(a, b);
}
template <typename T, int D, bool Odd>
inline Vector<T> blocks_in_turn(Vector<T> a, Vector<T> b) {
    return blocks_in_turn<D, Odd>(a, b, std::make_index_sequence<kWidth<T>>());
}

// Afterwards lane i of rows[j] is what lane j of rows[i] was: blocks of 1, 2, 4 … lanes change places.
template <typename T, int D = 1>
inline void transpose(Vector<T> (&rows)[kWidth<T>]) {
#pragma GCC unroll 16
    for (int i = 0; i < kWidth<T>; ++i) {
        if (i & D) continue;
        const Vector<T> a = rows[i], b = rows[i + D];
        rows[i] = blocks_in_turn<T, D, false>(a, b);
        rows[i + D] = blocks_in_turn<T, D, true>(a, b);
    }
    if constexpr (2 * D < kWidth<T>) transpose<T, 2 * D>(rows);
}

// Lane i is the sum over the lanes of v[i], added by halves: two vectors become one, until one is left.
template <typename T, int D = kWidth<T> / 2>
inline Vector<T> sum_rows_of(Vector<T> (&v)[kWidth<T>]) {
#pragma GCC unroll 16
    for (int i = 0; i < D; ++i)
        v[i] = blocks_in_turn<T, D, false>(v[i], v[i + D]) + blocks_in_turn<T, D, true>(v[i], v[i + D]);
    if constexpr (D > 1)
        return sum_rows_of<T, D / 2>(v);
    else
        return v[0];
}

// sums[i] = Σ over the lanes of v[i]: the same tree for every i and every number of vectors
template <typename T, int R>
inline void sum_lanes(T* sums, const Vector<T> (&v)[R]) {
    constexpr int V = kWidth<T>;
#pragma GCC unroll 16
    for (int first = 0; first < R; first += V) {
        Vector<T> rows[V];
        for (int i = 0; i < V; ++i) rows[i] = first + i < R ? v[first + i] : Vector<T>{};
        const Vector<T> found = sum_rows_of<T>(rows);
        std::memcpy(sums + first, &found, std::min(V, R - first) * sizeof(T));
    }
}

// v[i] = Σ over the lanes of vector i, in place: number i is written when vectors up to i have been read
template <typename T>
void sum_each(T* v, std::ptrdiff_t count) {
    constexpr int R = 16;
    for (std::ptrdiff_t i = 0; i < count; i += R) {
        const int n = count - i < R ? int(count - i) : R;
        Vector<T> rows[R];
        T sums[R];
        for (int j = 0; j < R; ++j) rows[j] = j < n ? load(v + (i + j) * kWidth<T>) : Vector<T>{};
        sum_lanes(sums, rows);
        std::memcpy(v + i, sums, n * sizeof(T));
    }
}

}  // namespace
}  // namespace sharedgrad
