// The two inner loops of all convolutions: a tile of sums stays in registers while the taps, or the positions, go by.
#pragma once

#include "layout.hpp"

namespace sharedgrad {
namespace {

// Loops over a tile are unrolled by pragmas: left to itself GCC 12 does it too late to keep all sums in registers.

// ---- correlate: sum[f][c] = Σ_t w[t][f] · x[c][t], for F filters and C vectors of outputs

template <typename T>
struct CorrelateTile {
    T* const* out;               // (C): where each vector goes, for the first filter
    std::ptrdiff_t out_channel;  // from filter to filter
    const T* const* x;           // (C): of each vector, where the taps count from
    const std::ptrdiff_t* taps;  // (count)
    int count;
    const T* w;        // (count, F)
    const T* bias;     // (F), or null
    const int* valid;  // (C): lanes of each vector that exist
    bool resume, relu;
    const T* const* gate = nullptr;  // (C), for the first filter: the output of a ReLU that the sums go back through
    std::ptrdiff_t gate_channel = 0;
};

template <typename T, int F, int C>
void correlate(const CorrelateTile<T>& tile) {
    using V = Vector<T>;
    V sum[F][C];
    const T* x[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) x[c] = tile.x[c];
#pragma GCC unroll 8
    for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
            sum[f][c] = tile.resume ? load_part(tile.out[c] + f * tile.out_channel, tile.valid[c])
                                    : splat(tile.bias ? tile.bias[f] : T(0));
    const T* w = tile.w;
    const std::ptrdiff_t* taps = tile.taps;
    for (const auto* end = taps + tile.count; taps != end; ++taps, w += F) {
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
    bool whole = true;
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) whole &= tile.valid[c] == kWidth<T>;
    const auto put = [&](const auto& write) {
#pragma GCC unroll 8
        for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                T* const to = tile.out[c] + f * tile.out_channel;
                const T* const gate = tile.gate ? tile.gate[c] + f * tile.gate_channel : nullptr;
                write(c, to, finished<T>(sum[f][c], false, tile.relu, to, gate, load<T>));
            }
    };
    if (whole)
        put([](int, T* to, V v) { store(to, v); });
    else
        put([&](int c, T* to, V v) { store_part(to, v, tile.valid[c]); });
}

template <typename T>
using Correlate = void (*)(const CorrelateTile<T>&);

constexpr int kMostColumns = 8;

constexpr int most_columns(int filters) {
    return filters * kMostColumns <= kTileFilters * kTileColumns ? kMostColumns : kTileFilters * kTileColumns / filters;
}

template <typename T, int F, int C>
constexpr Correlate<T> correlate_or_null() {
    if constexpr (F <= kTileFilters && C <= most_columns(F))
        return correlate<T, F, C>;
    else
        return nullptr;
}

template <typename T, int F>
constexpr Correlate<T> kColumns[kMostColumns] = {
    correlate_or_null<T, F, 1>(), correlate_or_null<T, F, 2>(), correlate_or_null<T, F, 3>(),
    correlate_or_null<T, F, 4>(), correlate_or_null<T, F, 5>(), correlate_or_null<T, F, 6>(),
    correlate_or_null<T, F, 7>(), correlate_or_null<T, F, 8>(),
};

template <typename T>
constexpr const Correlate<T>* kCorrelate[] = {kColumns<T, 1>, kColumns<T, 2>, kColumns<T, 3>,
                                              kColumns<T, 4>, kColumns<T, 5>, kColumns<T, 6>};

// ---- outer: sum[f][k] += Σ_positions dy[f] · x[tap k]; the lanes are different samples and columns until the end

template <typename T>
struct OuterTile {
    T* sums;                     // (F, K, lanes)
    std::ptrdiff_t sums_filter;  // from filter to filter
    const T* dy;                 // (F, rows, vectors, lanes)
    std::ptrdiff_t dy_channel, dy_row;
    const T* x;                    // of the first position, where the taps count from
    std::ptrdiff_t x_step, x_row;  // from vector to vector, from row to row
    const std::ptrdiff_t* taps;    // (K)
    int rows, vectors, last;       // positions: vectors of a row, and lanes of its last vector that exist
    bool resume;                   // add to what the sums hold
};

constexpr int kMostTaps = 6;  // with a single filter

// With Part, the last vector of each row is not full. (A variant of its own: it would cost the other its registers.)
template <typename T, int F, int K, bool Part>
void outer(const OuterTile<T>& tile) {
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
            const int count = c == 1 ? tile.last : kWidth<T>;
            V delta[F];
#pragma GCC unroll 8
            for (int f = 0; f < F; ++f) {
                const T* from = dy + f * dy_channel;
                delta[f] = Part ? load_part(from, count) : load(from);
            }
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) {
                const V v = in_register(Part ? load_part(x + taps[k], count) : load(x + taps[k]));
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

template <typename T>
using Outer = void (*)(const OuterTile<T>&);

template <typename T, int F, int K, bool Part>
constexpr Outer<T> outer_or_null() {
    if constexpr ((F <= kTileDeltas && K <= kTileTaps) || F == 1)
        return outer<T, F, K, Part>;
    else
        return nullptr;
}

template <typename T, int F, bool Part>
constexpr Outer<T> kTaken[] = {
    outer_or_null<T, F, 1, Part>(), outer_or_null<T, F, 2, Part>(), outer_or_null<T, F, 3, Part>(),
    outer_or_null<T, F, 4, Part>(), outer_or_null<T, F, 5, Part>(), outer_or_null<T, F, 6, Part>(),
};

template <typename T, bool Part>
constexpr const Outer<T>* kOuter[] = {kTaken<T, 1, Part>, kTaken<T, 2, Part>, kTaken<T, 3, Part>, kTaken<T, 4, Part>};

template <typename T>
void outer(int filters, int taps, const OuterTile<T>& tile) {
    const bool part = tile.last < kWidth<T>;
    (part ? kOuter<T, true> : kOuter<T, false>)[filters - 1][taps - 1](tile);
}

}  // namespace
}  // namespace sharedgrad
