// The end of a row that does not fill a vector, and the sums over the lanes of many vectors.
#pragma once

#include <type_traits>

#include "vector.hpp"

namespace sharedgrad {
namespace {

// The first `count` numbers, and zeros; nothing beyond them is touched. At most a vector's width.
#if defined(__AVX512F__)
inline Vector<float> load_part(const float* from, int count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}
inline Vector<double> load_part(const double* from, int count) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
}
inline void store_part(float* to, Vector<float> v, int count) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), v);
}
inline void store_part(double* to, Vector<double> v, int count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), v);
}
#else
#if defined(__AVX2__)
// All bits of the first `count` lanes.
template <typename Integer>
inline __m256i mask_of_first(int count) {
    constexpr int W = kVectorBytes / sizeof(Integer);
    static constexpr Integer ones_then_zeros[2 * W] = {-1, -1, -1, -1, W > 4 ? -1 : 0, W > 4 ? -1 : 0, W > 4 ? -1 : 0,
                                                       W > 4 ? -1 : 0};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones_then_zeros + W - count));
}
inline Vector<float> load_part(const float* from, int count) {
    return _mm256_maskload_ps(from, mask_of_first<std::int32_t>(count));
}
inline Vector<double> load_part(const double* from, int count) {
    return _mm256_maskload_pd(from, mask_of_first<std::int64_t>(count));
}
inline void store_part(float* to, Vector<float> v, int count) {
    if (count == 8) return store(to, v);
    __m128 rest = _mm256_castps256_ps128(v);
    if (count & 4) {
        _mm_storeu_ps(to, rest);
        rest = _mm256_extractf128_ps(v, 1), to += 4;
    }
    if (count & 2) {
        _mm_storel_pi(reinterpret_cast<__m64*>(to), rest);
        rest = _mm_movehl_ps(rest, rest), to += 2;
    }
    if (count & 1) _mm_store_ss(to, rest);
}
inline void store_part(double* to, Vector<double> v, int count) {
    if (count == 4) return store(to, v);
    __m128d rest = _mm256_castpd256_pd128(v);
    if (count & 2) {
        _mm_storeu_pd(to, rest);
        rest = _mm256_extractf128_pd(v, 1), to += 2;
    }
    if (count & 1) _mm_store_sd(to, rest);
}
#else
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
    for (int l = 0; l < count; ++l) to[l] = lanes[l];
}
#endif
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
// The sums of 8 vectors by halves, all at once: upper half to lower half, then pairs, then neighbours.
inline Vector<float> sum_all(const Vector<float>* v) {
    const auto halves = [](__m256 a, __m256 b) {
        return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    };
    const auto pairs = [](__m256 a, __m256 b) {
        return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    };
    const __m256 a = pairs(halves(v[0], v[1]), halves(v[2], v[3]));
    const __m256 b = pairs(halves(v[4], v[5]), halves(v[6], v[7]));
    const __m256 sum = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
    return _mm256_permutevar8x32_ps(sum, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
// Of 4 vectors.
inline Vector<double> sum_all(const Vector<double>* v) {
    const auto halves = [](__m256d a, __m256d b) {
        return _mm256_add_pd(_mm256_permute2f128_pd(a, b, 0x20), _mm256_permute2f128_pd(a, b, 0x31));
    };
    const __m256d a = halves(v[0], v[1]), b = halves(v[2], v[3]);
    return _mm256_permute4x64_pd(_mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b)), 0xd8);
}
#endif

// sums[i] = Σ over the lanes of v[i], by halves: the same tree for every i and every number of vectors
template <typename T, int R>
inline void sum_lanes(T* sums, Vector<T> (&v)[R]) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && (R == 8 || R == 16)) {  // two vectors become one, four times over
        for (int i = 0; i < R / 2; ++i)
            v[i] = Vector<T>(
                _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1])));
        for (int i = 0; i < R / 4; ++i) {
            const __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
            v[i] =
                _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
        }
        for (int i = 0; i < R / 8; ++i)
            v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                                 _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
        const __m512 a = v[0], b = v[R / 8 - 1];
        v[0] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
        std::memcpy(sums, &v[0], R * sizeof(T));
        return;
    }
#elif defined(__AVX2__)
    if constexpr (R > 2) {
        constexpr int W = kWidth<T>;
        for (int i = 0; i < R; i += W) {
            Vector<T> group[W] = {};
            for (int j = 0; j < W && i + j < R; ++j) group[j] = v[i + j];
            const Vector<T> sum = sum_all(group);
            std::memcpy(sums + i, &sum, (R - i < W ? R - i : W) * sizeof(T));
        }
        return;
    }
#endif
    for (int i = 0; i < R; ++i) {
        T lanes[kWidth<T>];
        store(lanes, v[i]);
        for (int half = kWidth<T> / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
        sums[i] = lanes[0];
    }
}

// v[i] = Σ over the lanes of vector i, in place: number i is written when vectors up to i have been read
template <typename T>
void sum_each(T* v, std::ptrdiff_t count) {
    const auto sum = [v](std::ptrdiff_t i, auto group) {
        constexpr int R = decltype(group)::value;
        Vector<T> rows[R];
        T sums[R];
        for (int j = 0; j < R; ++j) rows[j] = load(v + (i + j) * kWidth<T>);
        sum_lanes(sums, rows);
        std::memcpy(v + i, sums, sizeof sums);
    };
    std::ptrdiff_t i = 0;
    for (; i + 16 <= count; i += 16) sum(i, std::integral_constant<int, 16>());
    for (; i + 4 <= count; i += 4) sum(i, std::integral_constant<int, 4>());
    for (; i < count; ++i) sum(i, std::integral_constant<int, 1>());
}

}  // namespace
}  // namespace sharedgrad
