// The two inner loops of all convolutions: a tile of sums stays in registers while the taps, or the positions, go by.
#pragma once

#include <array>
#include <utility>

#include "layout.hpp"

namespace sharedgrad {
namespace {

// Loops over a tile are unrolled by pragmas: left to itself GCC 12 does it too late to keep all sums in registers.

// ---- code for each size of a tile

// Tiles of R rows (filters, cells, taps) and C vectors beside them; the registers hold so many sums.
constexpr int kTileSums = kTileFilters * kTileColumns, kMostRows = 8;
constexpr int rows_beside(int vectors) { return std::min(kMostRows, kTileSums / vectors); }

template <typename Tile, int R, int C, int Sums>
constexpr auto tile_or_null() {
    if constexpr (R * C <= Sums)
        return &Tile::template run<R, C>;
    else
        return decltype(&Tile::template run<1, 1>)(nullptr);
}
template <typename Tile, int Columns, int Sums, int... RC>
constexpr auto tiles_of(std::integer_sequence<int, RC...>) {
    return std::array{tile_or_null<Tile, RC / Columns + 1, RC % Columns + 1, Sums>()...};
}
template <typename Tile, int Rows, int Columns, int Sums>
constexpr auto kTiles = tiles_of<Tile, Columns, Sums>(std::make_integer_sequence<int, Rows * Columns>());

// Tile::run for so many rows and vectors, of at most so many.
template <typename Tile, int Rows = kMostRows, int Columns = kTileColumns, int Sums = kTileSums>
constexpr auto tile_for(int rows, int vectors) {
    return kTiles<Tile, Rows, Columns, Sums>[(rows - 1) * Columns + vectors - 1];
}

// ---- correlate: sum[f][c] = Σ_t w[t][f] · x[c][t], for F filters and C vectors of outputs

// What `count` taps add to the sums: w (count, F)
template <typename T, typename V, int F, int C>
inline void add_taps(V (&sum)[F][C], const T* const (&x)[C], const std::ptrdiff_t* taps, int count, const T* w) {
    for (const auto* end = taps + count; taps != end; ++taps, w += F) {
        if constexpr (F < C) {  // the fewer of weights and inputs stay in registers, so that all sums do
            V weight[F];
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f) weight[f] = in_register(splat(w[f]));
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                const V v = load(x[c] + *taps);
#pragma GCC unroll 8
                for (int f = 0; f < F; ++f) sum[f][c] += weight[f] * v;
            }
        } else {
            V v[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) v[c] = load(x[c] + *taps);
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f) {
                const V weight = splat(w[f]);
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) sum[f][c] += weight * v[c];
            }
        }
    }
}

template <typename T>
struct Correlate {
    T* const* out;               // (C): where each vector goes, for the first filter
    std::ptrdiff_t out_channel;  // from filter to filter
    const T* const* x;           // (C): of each vector, where the taps count from
    const std::ptrdiff_t* taps;  // (count)
    int count;
    const T* w;     // (count, F)
    const T* bias;  // (F), or null
    bool resume, relu;
    int runs = 1;  // of taps, as long as the first
    std::ptrdiff_t runs_apart = 0;

    template <int F, int C>
    static void run(const Correlate& tile) {
        using V = Vector<T>;
        V sum[F][C];
        const T* x[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) x[c] = tile.x[c];
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c)
                sum[f][c] =
                    tile.resume ? load(tile.out[c] + f * tile.out_channel) : splat(tile.bias ? tile.bias[f] : T(0));
        for (int r = 0; r < tile.runs; ++r)
            add_taps(sum, x, tile.taps + r * tile.runs_apart, tile.count, tile.w + r * tile.runs_apart * F);
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c)
                store(tile.out[c] + f * tile.out_channel, tile.relu ? relu_of<T>(sum[f][c]) : sum[f][c]);
    }
};

constexpr int kMostColumns = 8;
constexpr int most_columns(int filters) { return std::min(kMostColumns, kTileSums / filters); }

// ---- outer: sum[f][k] += Σ_positions dy[f] · x[tap k]; the lanes stay apart until the end

// With Spread each x is a single number.
template <typename T, bool Spread = false>
struct Outer {
    T* sums;                     // (F, K, lanes)
    std::ptrdiff_t sums_filter;  // from filter to filter
    const T* dy;                 // (F, rows, vectors, lanes)
    std::ptrdiff_t dy_channel, dy_row;
    const T* x;                    // of the first position, where the taps count from
    std::ptrdiff_t x_step, x_row;  // from vector to vector, from row to row
    const std::ptrdiff_t* taps;    // (K)
    int rows, vectors;             // positions
    bool resume;                   // add to what the sums hold

    template <int F, int K>
    static void run(const Outer& tile) {
        using V = Vector<T>;
        const std::ptrdiff_t dy_channel = tile.dy_channel, x_step = tile.x_step;
        std::ptrdiff_t taps[K];
        V sum[F][K];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) taps[k] = tile.taps[k];
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k)
                sum[f][k] = tile.resume ? load(tile.sums + f * tile.sums_filter + k * kWidth<T>) : V{};
        for (int r = 0; r < tile.rows; ++r) {
            const T* dy = tile.dy + r * tile.dy_row;
            const T* x = tile.x + r * tile.x_row;
            for (int c = tile.vectors; c > 0; --c, dy += kWidth<T>, x += x_step) {
                V delta[F];
#pragma GCC unroll 8
                for (int f = 0; f < F; ++f) delta[f] = load(dy + f * dy_channel);
#pragma GCC unroll 8
                for (int k = 0; k < K; ++k) {
                    const V v = in_register(Spread ? splat(x[taps[k]]) : load(x + taps[k]));
#pragma GCC unroll 8
                    for (int f = 0; f < F; ++f) sum[f][k] += delta[f] * v;
                }
            }
        }
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) store(tile.sums + f * tile.sums_filter + k * kWidth<T>, sum[f][k]);
    }
};

constexpr int kMostTaps = 6;  // with a single filter

template <typename T>
void outer(int filters, int taps, const Outer<T>& tile) {
    tile_for<Outer<T>, kTileDeltas, kMostTaps>(filters, taps)(tile);
}

}  // namespace
}  // namespace sharedgrad
