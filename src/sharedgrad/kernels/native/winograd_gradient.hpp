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

constexpr std::size_t kAllSums = 16 << 20;                         // bytes for the partial sums of all chunks
constexpr int kMostChunks = 8, kFewChunks = 4, kEnoughStrips = 4;  // of a chunk: then adding it up costs little

// Transposed: to[s·apart] = lane s of each of V channels, from[c·V + s]
template <typename T>
void samples_to_rows(T* to, std::ptrdiff_t apart, const T* from) {
    constexpr int V = kWidth<T>;
    Vector<T> rows[V];
    for (int c = 0; c < V; ++c) rows[c] = load(from + c * V);
    transpose<T>(rows);
    for (int s = 0; s < V; ++s) store(to + s * apart, rows[s]);
}

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

// A tile of upstream gradients, of which so many rows and columns are there, into its points, `apart` from each other.
template <typename T>
void transform_upstream(T* to, std::ptrdiff_t apart, const T* from, std::ptrdiff_t line, int rows, int columns) {
    using V = Vector<T>;
    V half[kInputSide][kOutputSide];
    for (int j = 0; j < kOutputSide; ++j) {
        V d[kOutputSide], u[kInputSide];
        for (int i = 0; i < kOutputSide; ++i)
            d[i] = i < rows && j < columns ? load(from + i * line + j * kWidth<T>) : V{};
        upstream_points(d, u);
        for (int i = 0; i < kInputSide; ++i) half[i][j] = u[i];
    }
    for (int i = 0; i < kInputSide; ++i) {
        V u[kInputSide];
        upstream_points(half[i], u);
        for (int j = 0; j < kInputSide; ++j) store(to + (i * kInputSide + j) * apart, u[j]);
    }
}

// The sums of a chunk of strips and a part of the channels: [chunk][part][point][filter][channel].
template <typename T>
struct WinogradGradient {
    static constexpr int V = kWidth<T>;
    const Map<T>&dy, &x;
    int pad_h, pad_w;
    Tiling tiles;
    EvenRanges strips, parts;  // of tiles; of vectors of channels
    std::ptrdiff_t all;        // sums of a chunk

    WinogradGradient(const Map<T>& dy, const Map<T>& x, int pad_h, int pad_w)
        : dy(dy),
          x(x),
          pad_h(pad_h),
          pad_w(pad_w),
          tiles(dy),
          strips(tiles.count, kTileColumns),
          parts(ceil_div(x.channels, V), kTileColumns),
          all(std::ptrdiff_t(kPoints) * dy.channels * parts.begin(parts.count) * V) {}

    T* sums_of(T* sums, int chunk, int part) const {
        return sums + chunk * all + std::ptrdiff_t(kPoints) * dy.channels * parts.begin(part) * V;
    }

    void run(T* dw) const {
        const int most = std::max(1, std::min(kMostChunks / parts.count, int(kAllSums / (all * sizeof(T)))));
        const int enough = std::min(kEnoughStrips, ceil_div(strips.count, kFewChunks));
        const EvenRanges chunks(strips.count, std::max(enough, ceil_div(strips.count, most)));
        T* sums = WinogradGradientMemory::memory<T, kWeights>(all * chunks.count);
        parallel(chunks.count * parts.count, operations(dy, x, {3, 3, 1, 1, 0, 0, 1, 1, 1}), [&](int task) {
            const int chunk = task / parts.count, part = task % parts.count;
            for (int strip = chunks.begin(chunk); strip < chunks.begin(chunk + 1); ++strip)
                one_strip(sums_of(sums, chunk, part), strip, part, strip > chunks.begin(chunk));
        });
        parallel(dy.channels, double(all) * chunks.count, [&](int f) { finish(dw, sums, f, chunks.count); });
    }

    void one_strip(T* sums, int strip, int part, bool resume) const {
        const int count = strips.size(strip), vectors = parts.size(part);
        const std::ptrdiff_t terms = std::ptrdiff_t(count) * V, row = std::ptrdiff_t(vectors) * V;
        const std::ptrdiff_t inputs_point = terms * row + kAside<T>, deltas_point = terms * dy.channels + kAside<T>;
        T* const inputs = WinogradGradientMemory::memory<T, kInputs>(kPoints * inputs_point);
        T* const deltas = WinogradGradientMemory::memory<T, kSums>(kPoints * deltas_point);
        for (int t = 0; t < count; ++t) {
            const auto at = tiles.place(strips.begin(strip) + t);
            const Patch<T> patch(x, at, pad_h, pad_w);
            for (int v = 0; v < vectors; ++v)
                transform_vector(inputs + t * V * row + v * V, inputs_point, row, patch, (parts.begin(part) + v) * V);
            for (int f = 0; f < dy.channels; ++f)
                transform_upstream(deltas + f * terms + t * V, deltas_point, dy.cell(at.block, f, at.h) + at.w * V,
                                   dy.row(), dy.height - at.h, dy.width - at.w);
        }
        const EvenRanges filters(dy.channels, kTileFilters);
        for (int p = 0; p < kPoints; ++p)
            for (int i = 0; i < filters.count; ++i)
                tile_for<PointProduct<T>>(filters.size(i), vectors)(
                    sums + (p * dy.channels + filters.begin(i)) * row, inputs + p * inputs_point,
                    deltas + p * deltas_point + filters.begin(i) * terms, int(terms), resume);
    }

    // A tile of V channels into its points: to[point][sample][channel].
    void transform_vector(T* to, std::ptrdiff_t apart, std::ptrdiff_t row, const Patch<T>& patch, int first) const {
        alignas(64) T points[kPoints][V][V];
        const int there = std::min(V, x.channels - first);
        if (there < V) std::fill_n(points[0][0], kPoints * V * V, T(0));
        for (int c = 0; c < there; ++c)
            transform_input(points[0][c], V * V, patch.from + (first + c) * x.channel(), x.row(), patch.rows,
                            patch.columns);
        for (int p = 0; p < kPoints; ++p) samples_to_rows(to + p * apart, row, points[p][0]);
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
                        s[i] += load(from + chunk * all + (i * kInputSide + j) * dy.channels * row);
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
