// The weight gradient of 3×3 convolutions of stride 1 with fewer multiplications: see winograd.hpp.
//
// With the same points, a 4×4 tile δ of upstream gradients and its 6×6 inputs d give their part of the 3×3 gradient:
//   dw = Aᵀ [ Σ_tiles,samples (G δ Gᵀ) ∘ (Bᵀ d B) ] A
// For each point that is a matrix product over tiles and samples. Here the lanes are channels, not samples: then there
// is one sum for all samples, small enough for the cache, and no lanes to add up in the end.
#pragma once

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using WinogradGradientMemory = Owner<kWeights, kInputs, kSums>;

constexpr std::size_t kAllSums = 16 << 20;         // bytes for the partial sums of all chunks
constexpr int kMostChunks = 4, kEnoughStrips = 4;  // of a chunk: then adding it up costs little

// Two rows of points at a time: so many terms, and the sums for so many channels, stay in the second-level cache.
constexpr int kTerms = 64, kChannelsAtOnce = 64;
constexpr int kPairs = kInputSide / 2, kPairRows[kPairs][2] = {{0, 5}, {1, 2}, {3, 4}};  // these share their sums
constexpr int kPlaceOfRow[kInputSide] = {0, 2, 3, 4, 5, 1};                              // among all pairs' rows
constexpr int kPairPoints = 2 * kInputSide;

// G applied to four values, but for the factors 1 / Π (p − q), which are left to the end.
template <typename V>
inline void upstream_points(const V (&d)[kOutputSide], V (&u)[kInputSide]) {
    const V even_a = d[0] + kA2 * d[2], odd_a = kA * (d[1] + kA2 * d[3]);
    const V even_b = d[0] + kB2 * d[2], odd_b = kB * (d[1] + kB2 * d[3]);
    u[0] = d[0];
    u[1] = even_a + odd_a, u[2] = even_a - odd_a;
    u[3] = even_b + odd_b, u[4] = even_b - odd_b;
    u[5] = d[3];
}

// Those factors and Aᵀ applied to the sums in six points.
template <typename V>
inline void kernel_cells(const V (&s)[kInputSide], V (&w)[3]) {
    constexpr float a = 1 / (2 * kA2 * (kA2 - kB2)), b = 1 / (2 * kB2 * (kB2 - kA2));
    const V even_a = a * (s[1] + s[2]), even_b = b * (s[3] + s[4]);
    w[0] = (1 / kA2TimesB2) * s[0] + even_a + even_b;
    w[1] = (a * kA) * (s[1] - s[2]) + (b * kB) * (s[3] - s[4]);
    w[2] = kA2 * even_a + kB2 * even_b + s[5];
}

// Two rows of the points of a tile, of which so many rows and columns are there, `apart` from each other; `points`
// makes six values of those of a row or column.
template <int Pair, int Cells, typename T, typename Points>
void transform_pair(T* to, std::ptrdiff_t apart, const T* from, std::ptrdiff_t line, int rows, int columns,
                    const Points& points) {
    const bool whole = rows >= Cells && columns >= Cells;
    Vector<T> half[2][Cells];
    for (int j = 0; j < Cells; ++j) {
        Vector<T> d[Cells], u[kInputSide];
        for (int i = 0; i < Cells; ++i)
            d[i] = whole || (i < rows && j < columns) ? load(from + i * line + j * kWidth<T>) : Vector<T>{};
        points(d, u);
        for (int r = 0; r < 2; ++r) half[r][j] = u[kPairRows[Pair][r]];
    }
    for (int r = 0; r < 2; ++r) {
        Vector<T> u[kInputSide];
        points(half[r], u);
        for (int j = 0; j < kInputSide; ++j) store(to + (r * kInputSide + j) * apart, u[j]);
    }
}

// The sums of a chunk of strips and a part of the channels: [chunk][part][point][filter][channel].
template <typename T>
struct WinogradGradient {
    static constexpr int V = kWidth<T>;
    const Map<T>&dy, &x;
    int pad_h, pad_w;
    Tiling tiles;
    EvenRanges strips, parts, groups;  // of tiles; of vectors of channels; of parts
    std::ptrdiff_t all;                // sums of a chunk

    WinogradGradient(const Map<T>& dy, const Map<T>& x, int pad_h, int pad_w)
        : dy(dy),
          x(x),
          pad_h(pad_h),
          pad_w(pad_w),
          tiles(dy),
          strips(tiles.count, kTerms / V),
          parts(ceil_div(x.channels, V), kTileColumns),
          groups(parts.count, ceil_div(kChannelsAtOnce, kTileColumns * V)),
          all(std::ptrdiff_t(kPoints) * dy.channels * parts.begin(parts.count) * V) {}

    T* sums_of(T* sums, int chunk, int part) const {
        return sums + chunk * all + std::ptrdiff_t(kPoints) * dy.channels * parts.begin(part) * V;
    }

    void run(T* dw) const {
        const int most = std::max(1, std::min(kMostChunks / groups.count, int(kAllSums / (all * sizeof(T)))));
        const int enough = std::min(kEnoughStrips, ceil_div(strips.count, kMostChunks));
        const EvenRanges chunks(strips.count, std::max(enough, ceil_div(strips.count, most)));
        T* sums = WinogradGradientMemory::memory<T, kWeights>(all * chunks.count);
        parallel(chunks.count * groups.count * kPairs, operations(dy, x, {3, 3, 1, 1, 0, 0, 1, 1, 1}), [&](int task) {
            const int chunk = task / kPairs / groups.count, group = task / kPairs % groups.count;
            constexpr decltype(&WinogradGradient::one_strip<0>) pairs[] = {
                &WinogradGradient::one_strip<0>, &WinogradGradient::one_strip<1>, &WinogradGradient::one_strip<2>};
            for (int strip = chunks.begin(chunk); strip < chunks.begin(chunk + 1); ++strip)
                (this->*pairs[task % kPairs])(sums + chunk * all, strip, group, strip > chunks.begin(chunk));
        });
        parallel(dy.channels, double(all) * chunks.count, [&](int f) { finish(dw, sums, f, chunks.count); });
    }

    template <int Pair>
    void one_strip(T* sums, int strip, int group, bool resume) const {
        const int count = strips.size(strip), terms = count * V;
        const std::ptrdiff_t most = std::ptrdiff_t(parts.size(0)) * V;
        const std::ptrdiff_t inputs_point = terms * most + kAside<T>, deltas_point = terms * dy.channels + kAside<T>;
        T* const inputs = WinogradGradientMemory::memory<T, kInputs>(kPairPoints * inputs_point);
        T* const deltas = WinogradGradientMemory::memory<T, kSums>(kPairPoints * deltas_point);
        for (int f = 0; f < dy.channels; ++f)
            for (int t = 0; t < count; ++t) {
                const auto at = tiles.place(strips.begin(strip) + t);
                transform_pair<Pair, kOutputSide>(deltas + f * terms + t * V, deltas_point,
                                                  dy.cell(at.block, f, at.h) + at.w * V, dy.row(), dy.height - at.h,
                                                  dy.width - at.w, [](auto& d, auto& u) { upstream_points(d, u); });
            }
        const EvenRanges filters(dy.channels, kTileFilters);
        for (int part = groups.begin(group); part < groups.begin(group + 1); ++part) {
            const int vectors = parts.size(part);
            const std::ptrdiff_t row = std::ptrdiff_t(vectors) * V;
            for (int t = 0; t < count; ++t)
                for (int v = 0; v < vectors; ++v)
                    transform_vector<Pair>(inputs + t * V * row + v * V, inputs_point, row,
                                           {x, tiles.place(strips.begin(strip) + t), pad_h, pad_w},
                                           (parts.begin(part) + v) * V);
            T* to = sums_of(sums, 0, part) + Pair * kPairPoints * dy.channels * row;
            for (int p = 0; p < kPairPoints; ++p)
                for (int i = 0; i < filters.count; to += filters.size(i++) * row)
                    tile_for<PointProduct<T>>(filters.size(i), vectors)(
                        to, inputs + p * inputs_point, deltas + p * deltas_point + filters.begin(i) * terms, terms,
                        resume);
        }
    }

    // A tile of V channels into two rows of its points: to[point][sample][channel].
    template <int Pair>
    void transform_vector(T* to, std::ptrdiff_t apart, std::ptrdiff_t row, const Patch<T>& patch, int first) const {
        alignas(64) T points[kPairPoints][V][V];
        const int there = std::min(V, x.channels - first);
        if (there < V) std::fill_n(points[0][0], kPairPoints * V * V, T(0));
        for (int c = 0; c < there; ++c)
            transform_pair<Pair, kInputSide>(points[0][c], V * V, patch.from + (first + c) * x.channel(), x.row(),
                                             patch.rows, patch.columns, [](auto& d, auto& u) { input_points(d, u); });
        for (int p = 0; p < kPairPoints; ++p) {
            Vector<T> rows[V];
            for (int c = 0; c < V; ++c) rows[c] = load(points[p][c]);
            transpose<T>(rows);
            for (int s = 0; s < V; ++s) store(to + p * apart + s * row, rows[s]);
        }
    }

    // The chunks' sums, added in their order, from points back to the kernel's cells.
    void finish(T* dw, T* sums, int f, int chunks) const {
        for (int v = 0; v < parts.begin(parts.count); ++v) {
            const int part = parts.of(v);
            const std::ptrdiff_t row = std::ptrdiff_t(parts.size(part)) * V;
            const T* from = sums_of(sums, 0, part) + f * row + (v - parts.begin(part)) * V;
            Vector<T> half[3][kInputSide];
            for (int j = 0; j < kInputSide; ++j) {
                Vector<T> s[kInputSide] = {}, cells[3];
                for (int chunk = 0; chunk < chunks; ++chunk)
                    for (int i = 0; i < kInputSide; ++i)
                        s[i] += load(from + chunk * all + (kPlaceOfRow[i] * kInputSide + j) * dy.channels * row);
                kernel_cells(s, cells);
                for (int i = 0; i < 3; ++i) half[i][j] = cells[i];
            }
            alignas(64) T cells[9][V];
            for (int i = 0; i < 3; ++i) {
                Vector<T> w[3];
                kernel_cells(half[i], w);
                for (int j = 0; j < 3; ++j) store(cells[3 * i + j], w[j]);
            }
            T* to = dw + (std::size_t(f) * x.channels + v * V) * 9;
            for (int c = 0; c < std::min(V, x.channels - v * V); ++c)
                for (int k = 0; k < 9; ++k) to[c * 9 + k] = cells[k][c];
        }
    }
};

}  // namespace
}  // namespace sharedgrad
