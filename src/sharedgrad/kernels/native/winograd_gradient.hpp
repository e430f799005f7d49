// The weight gradient of 3×3 convolutions of stride 1 with fewer multiplications: see winograd.hpp.
//
// With the same points, a 2×2 tile δ of upstream gradients and its 4×4 inputs d give their part of the 3×3 gradient:
//   dw = Aᵀ [ Σ_tiles,samples (G δ Gᵀ) ∘ (Bᵀ d B) ] A
// For each point that is a matrix product over tiles and samples. Here the lanes are channels, not samples: then there
// is one sum for all samples, small enough for the cache, and no lanes to add up in the end.
#pragma once

#include "winograd.hpp"

namespace sharedgrad {
namespace {

constexpr std::size_t kAllSums = 16 << 20;  // bytes for the partial sums of all chunks
constexpr int kMostChunks = 16, kFewestChunks = 4;

// Transposed: to[s·apart] = lane s of each of V channels, from[c·V + s]
template <typename T>
void samples_to_rows(T* to, std::ptrdiff_t apart, const T* from) {
    constexpr int V = kWidth<T>;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        __m512 rows[16];
        for (int c = 0; c < V; ++c) rows[c] = (__m512)load(from + c * V);
        transpose16(rows);
        for (int s = 0; s < V; ++s) store(to + s * apart, (Vector<T>)rows[s]);
        return;
    }
#endif
    for (int s = 0; s < V; ++s)
        for (int c = 0; c < V; ++c) to[s * apart + c] = from[c * V + s];
}

// A 2×2 tile of upstream gradients in its 16 points, `apart` from each other.
template <typename T>
void transform_upstream(T* to, std::ptrdiff_t apart, const T* cell, std::ptrdiff_t line, bool right, bool lower) {
    using V = Vector<T>;
    const V zero{}, half = V() + T(0.5);
    const V d[2][2] = {{load(cell), right ? load(cell + kWidth<T>) : zero},
                       {lower ? load(cell + line) : zero, lower && right ? load(cell + line + kWidth<T>) : zero}};
    V rows[4][2];
    for (int j = 0; j < 2; ++j) {
        rows[0][j] = d[0][j], rows[1][j] = (d[0][j] + d[1][j]) * half;
        rows[2][j] = (d[0][j] - d[1][j]) * half, rows[3][j] = d[1][j];
    }
    for (int i = 0; i < 4; ++i) {
        const V a = rows[i][0], b = rows[i][1];
        store(to + (i * 4) * apart, a);
        store(to + (i * 4 + 1) * apart, (a + b) * half);
        store(to + (i * 4 + 2) * apart, (a - b) * half);
        store(to + (i * 4 + 3) * apart, b);
    }
}

// sums[f][c] += Σ_k delta[f][k] · x[k][c] for F filters and C vectors of channels
template <typename T, int F, int C>
void gather(T* sums, std::ptrdiff_t row, const T* delta, std::ptrdiff_t count, const T* x) {
    Vector<T> sum[F][C];
    for (int f = 0; f < F; ++f)
        for (int c = 0; c < C; ++c) sum[f][c] = load(sums + f * row + c * kWidth<T>);
    for (std::ptrdiff_t k = 0; k < count; ++k, x += row) {
        Vector<T> v[C];
        for (int c = 0; c < C; ++c) v[c] = load(x + c * kWidth<T>);
        for (int f = 0; f < F; ++f) {
            const Vector<T> d = splat(delta[f * count + k]);
            for (int c = 0; c < C; ++c) sum[f][c] += d * v[c];
        }
    }
    for (int f = 0; f < F; ++f)
        for (int c = 0; c < C; ++c) store(sums + f * row + c * kWidth<T>, sum[f][c]);
}

template <typename T>
using Gather = void (*)(T*, std::ptrdiff_t, const T*, std::ptrdiff_t, const T*);

template <typename T, int F>
constexpr Gather<T> gather_or_null(int vectors) {
    if constexpr (F <= kTileFilters)
        return vectors == 1   ? gather<T, F, 1>
               : vectors == 2 ? gather<T, F, 2>
               : vectors == 3 ? gather<T, F, 3>
                              : gather<T, F, kTileColumns>;
    else
        return nullptr;
}

template <typename T>
Gather<T> gather_tile(int filters, int vectors) {
    switch (filters) {
        case 1:
            return gather_or_null<T, 1>(vectors);
        case 2:
            return gather_or_null<T, 2>(vectors);
        case 3:
            return gather_or_null<T, 3>(vectors);
        case 4:
            return gather_or_null<T, 4>(vectors);
        case 5:
            return gather_or_null<T, 5>(vectors);
        default:
            return gather_or_null<T, 6>(vectors);
    }
}

template <typename T>
struct WinogradGradient {
    const Map<T>&dy, &x;
    int pad_h, pad_w;
    int across, tiles, strip, strips;  // tiles of a row and of a map; tiles of a strip, and strips of a map
    int vectors;                       // of channels
    std::ptrdiff_t row, point;         // channels filled up to whole vectors; sums of a point

    WinogradGradient(const Map<T>& dy, const Map<T>& x, int pad_h, int pad_w)
        : dy(dy),
          x(x),
          pad_h(pad_h),
          pad_w(pad_w),
          across(ceil_div(dy.width, 2)),
          tiles(across * ceil_div(dy.height, 2)),
          vectors(ceil_div(x.channels, kWidth<T>)),
          row(std::ptrdiff_t(vectors) * kWidth<T>),
          point(row * dy.channels) {
        const int fit = int(kPointBytes / (sizeof(Vector<T>) * row));
        strip = std::min(std::max(kPointColumns, std::min(kMostTiles, fit)), tiles);
        strips = ceil_div(tiles, strip);
    }

    void run(T* dw) const {
        const std::size_t all = kPoints * std::size_t(point);
        const int work = dy.blocks() * strips;
        const Tiles chunks(
            work, ceil_div(work, std::max(kFewestChunks, std::min(kMostChunks, int(kAllSums / (all * sizeof(T)))))));
        T* sums = memory<T>(kWeights, all * chunks.count);
        parallel(chunks.count, operations(dy, x, {3, 3, 1, 1, 0, 0, 1, 1, 1}), [&](int chunk) {
            std::fill_n(sums + chunk * all, all, T(0));
            for (int item = chunks.begin(chunk); item < chunks.begin(chunk + 1); ++item)
                one_strip(sums + chunk * all, item / strips, item % strips * strip);
        });
        parallel(dy.channels, double(all) * chunks.count, [&](int f) { finish(dw, sums, f, chunks.count); });
    }

    void one_strip(T* sums, int block, int first) const {
        constexpr int V = kWidth<T>;
        const int count = std::min(strip, tiles - first);
        const std::ptrdiff_t terms = std::ptrdiff_t(count) * V;
        const std::ptrdiff_t inputs_point = terms * row + kAside<T>, deltas_point = terms * dy.channels + kAside<T>;
        T* inputs = memory<T>(kSplit, kPoints * inputs_point);
        T* deltas = memory<T>(kSums, kPoints * deltas_point);
        alignas(64) T points[kPoints * V * V];
        for (int group = 0; group < vectors; ++group)
            for (int t = 0; t < count; ++t) {
                const int own = std::min(V, x.channels - group * V);
                if (own < V) std::fill_n(points, kPoints * V * V, T(0));
                for (int c = 0; c < own; ++c)
                    transform_input(points + c * V, V * V, x.data + block * x.block() + (group * V + c) * x.channel(),
                                    x, (first + t) / across * 2 + x.top - pad_h,
                                    (first + t) % across * 2 + x.left - pad_w);
                for (int p = 0; p < kPoints; ++p)
                    samples_to_rows(inputs + p * inputs_point + t * V * row + group * V, row, points + p * V * V);
            }
        for (int f = 0; f < dy.channels; ++f)
            for (int t = 0; t < count; ++t) {
                const int h = (first + t) / across * 2, w = (first + t) % across * 2;
                transform_upstream(deltas + f * terms + t * V, deltas_point,
                                   dy.cell(block, f, h) + std::ptrdiff_t(w) * V, dy.row(), w + 1 < dy.width,
                                   h + 1 < dy.height);
            }
        const Tiles filters(dy.channels, kTileFilters);
        for (int p = 0; p < kPoints; ++p)
            for (int v = 0; v < vectors; v += kTileColumns)
                for (int i = 0; i < filters.count; ++i)
                    gather_tile<T>(filters.size(i), std::min(kTileColumns, vectors - v))(
                        sums + p * point + filters.begin(i) * row + v * V, row,
                        deltas + p * deltas_point + filters.begin(i) * terms, terms, inputs + p * inputs_point + v * V);
    }

    // The chunks' sums, added in their order, from points back to the kernel's cells.
    void finish(T* dw, const T* sums, int f, int chunks) const {
        constexpr int V = kWidth<T>;
        const std::size_t all = kPoints * std::size_t(point);
        for (int v = 0; v < vectors; ++v) {
            Vector<T> s[4][4], half[3][4];
            for (int p = 0; p < kPoints; ++p) {
                s[p / 4][p % 4] = Vector<T>{};
                for (int chunk = 0; chunk < chunks; ++chunk)
                    s[p / 4][p % 4] += load(sums + chunk * all + p * point + f * row + v * V);
            }
            for (int j = 0; j < 4; ++j) {
                half[0][j] = s[0][j] + s[1][j] + s[2][j];
                half[1][j] = s[1][j] - s[2][j];
                half[2][j] = s[1][j] + s[2][j] - s[3][j];
            }
            alignas(64) T cells[9][V];
            for (int i = 0; i < 3; ++i) {
                store(cells[3 * i], half[i][0] + half[i][1] + half[i][2]);
                store(cells[3 * i + 1], half[i][1] - half[i][2]);
                store(cells[3 * i + 2], half[i][1] + half[i][2] - half[i][3]);
            }
            T* to = dw + (std::size_t(f) * x.channels + v * V) * 9;
            for (int c = 0; c < std::min(V, x.channels - v * V); ++c)
                for (int k = 0; k < 9; ++k) to[c * 9 + k] = cells[k][c];
        }
    }
};

}  // namespace
}  // namespace sharedgrad
