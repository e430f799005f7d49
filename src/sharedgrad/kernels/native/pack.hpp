// Between the public order (N, C, H, W) and blocks (⌈N/L⌉, C, H, W, L), in which L samples lie side by side.
#pragma once

#include "vector.hpp"

namespace sharedgrad {
namespace {

#if defined(__AVX512F__)
// rows[i] holds 16 numbers of sample i; afterwards rows[j] holds number j of all 16 samples
inline void transpose16(__m512 (&rows)[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            rows[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            rows[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; ++j) {
            t[i + j] = _mm512_shuffle_f32x4(rows[i + j], rows[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_f32x4(rows[i + j], rows[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; ++j) {
        rows[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
        rows[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
    }
}
#endif

// to[i·L + l] = from[l][i] for i < count
template <typename T>
void interleave(T* to, const T* const (&from)[kLanes<T>], int count) {
    int i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        for (; i < count; i += 16) {
            const __mmask16 mask = count - i >= 16 ? 0xffff : (1u << (count - i)) - 1;
            __m512 rows[16];
            for (int l = 0; l < 16; ++l) rows[l] = _mm512_maskz_loadu_ps(mask, from[l] + i);
            transpose16(rows);
            const int n = count - i < 16 ? count - i : 16;
            for (int j = 0; j < n; ++j) _mm512_store_ps(to + (i + j) * 16, rows[j]);
        }
#endif
    for (; i < count; ++i)
        for (int l = 0; l < kLanes<T>; ++l) to[i * kLanes<T> + l] = from[l][i];
}

// to[l][i] = from[i·L + l] for i < count and l < lanes
template <typename T>
void separate(T* const (&to)[kLanes<T>], const T* from, int count, int lanes) {
    int i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        for (; i < count; i += 16) {
            const int n = count - i < 16 ? count - i : 16;
            const __mmask16 mask = n == 16 ? 0xffff : (1u << n) - 1;
            __m512 rows[16];
            for (int j = 0; j < 16; ++j) rows[j] = j < n ? _mm512_load_ps(from + (i + j) * 16) : _mm512_setzero_ps();
            transpose16(rows);
            for (int l = 0; l < lanes; ++l) _mm512_mask_storeu_ps(to[l] + i, mask, rows[l]);
        }
#endif
    for (; i < count; ++i)
        for (int l = 0; l < lanes; ++l) to[l][i] = from[i * kLanes<T> + l];
}

}  // namespace
}  // namespace sharedgrad
