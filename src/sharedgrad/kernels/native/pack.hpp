// Between maps with different numbers of samples side by side; plain arrays (N, C, H, W) have one.
#pragma once

#include "layout.hpp"

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

// to[i·V + l] = from[l][i] for i < count and l < alive; the other lanes are zero
template <typename T>
void interleave(T* to, const T* const (&from)[kWidth<T>], int count, int alive) {
    constexpr int V = kWidth<T>;
    int i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        for (; i < count; i += 16) {
            const int n = std::min(16, count - i);
            __m512 rows[16];
            for (int l = 0; l < 16; ++l) rows[l] = l < alive ? (__m512)load_part(from[l] + i, n) : _mm512_setzero_ps();
            transpose16(rows);
            for (int j = 0; j < n; ++j) _mm512_storeu_ps(to + (i + j) * 16, rows[j]);
        }
#endif
    for (; i < count; ++i)
        for (int l = 0; l < V; ++l) to[i * V + l] = l < alive ? from[l][i] : T(0);
}

// to[l][i] = from[i·V + l] for i < count and l < alive
template <typename T>
void separate(T* const (&to)[kWidth<T>], const T* from, int count, int alive) {
    constexpr int V = kWidth<T>;
    int i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        for (; i < count; i += 16) {
            const int n = std::min(16, count - i);
            __m512 rows[16];
            for (int j = 0; j < 16; ++j) rows[j] = j < n ? _mm512_loadu_ps(from + (i + j) * 16) : _mm512_setzero_ps();
            transpose16(rows);
            for (int l = 0; l < alive; ++l) store_part(to[l] + i, (Vector<T>)rows[l], n);
        }
#endif
    for (; i < count; ++i)
        for (int l = 0; l < alive; ++l) to[l][i] = from[i * V + l];
}

// Some cells of I samples side by side, from or to the samples' own memory.
template <typename T>
void exchange(T* row, T* const (&samples)[kWidth<T>], int cells, int I, int alive, bool into) {
    if (I == kWidth<T> && into)
        interleave<T>(row, const_cast<const T* const(&)[kWidth<T>]>(samples), cells, alive);
    else if (I == kWidth<T>)
        separate<T>(samples, row, cells, alive);
    else if (into)
        for (int i = 0; i < cells; ++i)
            for (int l = 0; l < I; ++l) row[std::ptrdiff_t(i) * I + l] = l < alive ? samples[l][i] : T(0);
    else
        for (int i = 0; i < cells; ++i)
            for (int l = 0; l < alive; ++l) samples[l][i] = row[std::ptrdiff_t(i) * I + l];
}

// The same numbers in another memory order; a vector's elements are a map's cells in the order of channel, row, column.
template <typename T>
void relayout(const Map<T>& to, const Map<T>& from) {
    constexpr int V = kWidth<T>;
    if (to.lanes == from.lanes && to.bare() && from.bare() && (to.lanes == 1 || to.channel() == from.channel())) {
        std::copy_n(from.data, from.size(), to.data);
        return;
    }
    const bool into =
        to.lanes > from.lanes || (to.lanes == from.lanes && to.height * to.width > from.height * from.width);
    const Map<T>& wide = into ? to : from;
    Map<T> plain = into ? from : to;  // one sample side by side, or as many as the other
    if (plain.bare()) plain.channels = wide.channels, plain.height = wide.height, plain.width = wide.width;
    const bool whole = to.bare() && from.bare();  // all cells of a channel lie in one piece
    const int height = whole ? 1 : wide.height, cells = whole ? wide.height * wide.width : wide.width;
    if (whole && plain.lanes == 1 && wide.channel() == std::ptrdiff_t(cells) * wide.lanes) {  // and all channels do
        constexpr int piece = 8 * V;
        const int all = wide.channels * cells, pieces = ceil_div(all, piece);
        parallel(wide.blocks() * pieces, 4 * from.operations(), [&, I = wide.lanes](int task) {
            const int block = task / pieces, begin = task % pieces * piece, alive = wide.alive(block);
            T* samples[kWidth<T>];
            for (int l = 0; l < alive; ++l) samples[l] = plain.cell(block * I + l, 0, 0) + begin;
            exchange(wide.cell(block, 0, 0) + std::ptrdiff_t(begin) * I, samples, std::min(piece, all - begin), I,
                     alive, into);
        });
        return;
    }
    parallel(wide.blocks() * wide.channels, 4 * from.operations(), [&, I = wide.lanes](int task) {
        const int block = task / wide.channels, c = task % wide.channels, alive = wide.alive(block);
        for (int h = 0; h < height; ++h) {
            T* const row = wide.cell(block, c, h);
            if (plain.lanes == I) {
                T* const other = plain.cell(block, c, h);
                std::copy_n(into ? other : row, std::ptrdiff_t(cells) * I, into ? row : other);
                continue;
            }
            T* samples[kWidth<T>];
            for (int l = 0; l < alive; ++l) samples[l] = plain.cell(block * I + l, c, h);
            exchange(row, samples, cells, I, alive, into);
        }
    });
}

}  // namespace
}  // namespace sharedgrad
