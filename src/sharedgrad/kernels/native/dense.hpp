// Products of matrices as a dense layer needs them; all arrays row-major: x (N, I), w (O, I), y (N, O).
//
//   forward          y[n,o]  = b[o] + Σ_i x[n,i] · w[o,i]   both factors run along i: lanes are parts of one sum,
//                                                            or, for many rows, w is turned first
//   input gradient   dx[n,i] = Σ_o dy[n,o] · w[o,i]         rows of w run along i: lanes are different results
//   weight gradient  dw[o,i] = Σ_n dy[n,o] · x[n,i]         rows of x run along i: likewise
//
// Each result is summed in an order that the shapes decide: neither its place in the batch nor the threads change a
// bit.
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "even_ranges.hpp"
#include "pack.hpp"
#include "partial.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

// Rows of a matrix may lie apart: those of one block of many are `stride` elements from each other.
template <typename T>
struct Rows {
    T* data;                // (rows, columns)
    std::ptrdiff_t stride;  // from row to row
    T* operator[](std::ptrdiff_t row) const { return data + row * stride; }
};

constexpr int kDenseTasks = 16;  // enough for the threads to share evenly

// A vector's worth of multiplications counted as one operation, as in a convolution; fetching the weights takes as long
// as multiplying three rows with them.
inline double dense_operations(int n, int outputs, int inputs) { return (n + 3.0) * outputs * inputs / 8; }

// ---- forward for few rows: a tile of dot products, w read as it lies

#if defined(__AVX512F__)
constexpr int kDotRows = 4, kDotColumns = 4;
#else
constexpr int kDotRows = 4, kDotColumns = 3;
#endif
constexpr int kDotBlock = 2 * kDotColumns;  // rows of w that stay in the first-level cache while x passes
constexpr int kDotLength = 1024;            // of so many numbers each

// y[n][o] (+)= Σ x[n][i] · w[o][i], begin ≤ i < end, for a tile of R × C; beyond the last row the last one is repeated
template <typename T, int R, int C>
void dots(Rows<T> y, Rows<const T> x, Rows<const T> w, int begin, int end, int rows, int columns, const T* bias) {
    const T *from[R], *weights[C];
    for (int r = 0; r < R; ++r) from[r] = x[std::min(r, rows - 1)];
    for (int c = 0; c < C; ++c) weights[c] = w[std::min(c, columns - 1)];
    Vector<T> sum[R * C] = {};
    const auto step = [&](const auto& take) {
        Vector<T> v[C];
        for (int c = 0; c < C; ++c) v[c] = take(weights[c]);
        for (int r = 0; r < R; ++r) {
            const Vector<T> u = take(from[r]);
            for (int c = 0; c < C; ++c) sum[r * C + c] += u * v[c];
        }
    };
    std::ptrdiff_t i = begin;
    for (; i + kWidth<T> <= end; i += kWidth<T>) step([i](const T* row) { return load(row + i); });
    if (i < end) step([i, end](const T* row) { return load_part(row + i, int(end - i)); });
    T sums[R * C];
    sum_lanes(sums, sum);
    for (int r = 0; r < std::min(R, rows); ++r)
        for (int c = 0; c < std::min(C, columns); ++c) {
            const T before = begin ? y[r][c] : bias ? bias[c] : T(0);
            y[r][c] = before + sums[r * C + c];
        }
}

template <typename T>
void linear_by_dots(Rows<T> y, Rows<const T> x, Rows<const T> w, const T* bias, int n, int outputs, int inputs) {
    if (n == 0 || outputs == 0) return;
    const EvenRanges lengths(std::max(inputs, 1), kDotLength), blocks(outputs, kDotBlock);
    const EvenRanges ranges(blocks.count, ceil_div(blocks.count, kDenseTasks));
    parallel(ranges.count, dense_operations(n, outputs, inputs), [&](int range) {
        for (int length = 0; length < lengths.count; ++length)
            for (int block = ranges.begin(range); block < ranges.begin(range) + ranges.size(range); ++block) {
                const int from = lengths.begin(length), to = std::min(inputs, from + lengths.size(length));
                const int first = blocks.begin(block), last = first + blocks.size(block);
                const auto tile = [&](auto dots, int row, int column) {
                    dots(Rows<T>{y[row] + column, y.stride}, Rows<const T>{x[row], x.stride},
                         Rows<const T>{w[column], w.stride}, from, to, n - row, last - column,
                         bias ? bias + column : nullptr);
                };
                for (int row = 0; row < n;) {
                    if (n - row < kDotRows - 1) {  // one row at a time, with more columns
                        tile(dots<T, 1, kDotBlock>, row++, first);
                        continue;
                    }
                    for (int column = first; column < last; column += kDotColumns)
                        tile(dots<T, kDotRows, kDotColumns>, row, column);
                    row += kDotRows;
                }
            }
    });
}

// ---- gradients, and forward for many rows: a tile of sums whose lanes are neighbouring columns

#if defined(__AVX512F__)
constexpr int kSumVectors = 4, kAccumulating = 24;  // registers that accumulate
#else
constexpr int kSumVectors = 3, kAccumulating = 12;
#endif
constexpr int kMostSumRows = 8;  // each row has a pointer of its own
constexpr int kTurnedRows = 64;  // turning a panel costs as much as multiplying it with about eight rows
constexpr int kDepth = 128;      // terms for which a panel of b stays in the first-level cache

constexpr int sum_rows(int vectors) { return std::min(kMostSumRows, kAccumulating / vectors); }

// c[m][j] = start[m][j] + Σ_k a[m][k] · b[k][j] for a tile of M rows × V vectors, the last one filled up to `last`.
// With Across a is given the other way round, a[k][m].
template <typename T, bool Across, int M, int V>
void multiply(Rows<T> c, Rows<const T> start, Rows<const T> a, Rows<const T> b, int terms, int last) {
    constexpr int W = kWidth<T>;
    Vector<T> sum[M][V];
    for (int m = 0; m < M; ++m) {
        for (int v = 0; v < V - 1; ++v) sum[m][v] = load(start[m] + v * W);
        sum[m][V - 1] = load_part(start[m] + (V - 1) * W, last);
    }
    for (int k = 0; k < terms; ++k) {
        Vector<T> row[V];
        for (int v = 0; v < V; ++v) row[v] = load(b[k] + v * W);
        for (int m = 0; m < M; ++m) {
            const Vector<T> factor = splat(Across ? a[k][m] : a[m][k]);
            for (int v = 0; v < V; ++v) sum[m][v] += factor * row[v];
        }
    }
    for (int m = 0; m < M; ++m) {
        for (int v = 0; v < V - 1; ++v) store(c[m] + v * W, sum[m][v]);
        store_part(c[m] + (V - 1) * W, sum[m][V - 1], last);
    }
}

template <typename T>
using Multiply = void (*)(Rows<T>, Rows<const T>, Rows<const T>, Rows<const T>, int, int);

template <typename T, bool Across, int V, std::size_t... M>
constexpr std::array<Multiply<T>, sizeof...(M)> multiplies(std::index_sequence<M...>) {
    return {multiply<T, Across, M + 1, V>...};
}

// [rows − 1] for a number of vectors
template <typename T, bool Across, int V>
constexpr auto kMultiply = multiplies<T, Across, V>(std::make_index_sequence<sum_rows(V)>());

template <typename T, bool Across>
Multiply<T> multiply_tile(int rows, int vectors) {
    switch (vectors) {
        case 1:
            return kMultiply<T, Across, 1>[rows - 1];
        case 2:
            return kMultiply<T, Across, 2>[rows - 1];
#if defined(__AVX512F__)
        case 4:
            return kMultiply<T, Across, 4>[rows - 1];
#endif
        default:
            return kMultiply<T, Across, 3>[rows - 1];
    }
}

// A panel of b in the first-level cache: its rows side by side, filled up with zeros to whole vectors.
template <typename T>
void pack(T* to, Rows<const T> b, int terms, int vectors, int last) {
    constexpr int W = kWidth<T>;
    for (int k = 0; k < terms; ++k, to += vectors * W) {
        for (int v = 0; v < vectors - 1; ++v) store(to + v * W, load(b[k] + v * W));
        store(to + (vectors - 1) * W, load_part(b[k] + (vectors - 1) * W, last));
    }
}

// The same from the other way round: to[k][j] = b[j][k].
template <typename T>
void pack_turned(T* to, Rows<const T> b, int terms, int vectors, int last) {
    constexpr int W = kWidth<T>;
    for (int v = 0; v < vectors; ++v) {
        const int columns = v < vectors - 1 ? W : last;
        for (int k = 0; k < terms; k += W) {
            const int count = std::min(W, terms - k);
            Vector<T> rows[W];
            for (int j = 0; j < W; ++j) {
                const T* from = b[v * W + std::min(j, columns - 1)] + k;
                rows[j] = load_part(from, count);
                __builtin_prefetch(from + kDepth, 0, 2);  // the next panel
            }
            transpose<T>(rows);
            for (int i = 0; i < count; ++i) store<T>(to + ((k + i) * vectors + v) * W, rows[i]);
        }
    }
}

// What a product is added to: a number for each column or each row, what is there already, or nothing.
template <typename T>
struct Start {
    const T *columns = nullptr, *rows = nullptr;
    bool resume = false;
};

// c (M, J) = start + a (M, K) · b (K, J); a is given as (K, M) with Across, b as (J, K) with Turned
template <typename T, bool Across, bool Turned>
void product(Rows<T> c, const Start<T>& start, Rows<const T> a, Rows<const T> b, int rows, int columns, int terms) {
    if (rows == 0 || columns == 0) return;
    if (Across && terms == 1 && !start.resume) {  // nothing to add up: write row by row
        const EvenRanges ranges(rows, ceil_div(rows, kDenseTasks));
        parallel(ranges.count, double(rows) * columns, [&](int range) {
            for (int m = ranges.begin(range); m < ranges.begin(range) + ranges.size(range); ++m)
                for (int j = 0; j < columns; ++j) c[m][j] = a[0][m] * b[0][j];
        });
        return;
    }
    constexpr int W = kWidth<T>;
    static constexpr T zeros[kSumVectors * W] = {};
    const EvenRanges panels(ceil_div(columns, W), kSumVectors), depths(std::max(terms, 1), kDepth);
    const int least = Turned ? kTurnedRows : kMostSumRows;  // rows that a packed panel serves
    const EvenRanges ranges(rows, std::max(least, ceil_div(rows, ceil_div(kDenseTasks, panels.count))));
    parallel(panels.count * ranges.count, dense_operations(rows, columns, terms), [&](int task) {
        const int panel = task % panels.count, range = task / panels.count;
        const int column = panels.begin(panel) * W, vectors = panels.size(panel);
        const int last = std::min(columns - column, vectors * W) - (vectors - 1) * W;
        const EvenRanges tiles(ranges.size(range), sum_rows(vectors));
        alignas(64) T packed[kDepth * kSumVectors * W];
        for (int depth = 0; depth < depths.count; ++depth) {
            const int begin = depths.begin(depth), count = std::min(terms, depths.size(depth));
            Rows<const T> factors{packed, std::ptrdiff_t(vectors) * W};
            if (Turned)
                pack_turned(packed, {b[column] + begin, b.stride}, count, vectors, last);
            else if (tiles.count > 2 || last < W)  // many tiles read it, or its rows end before a vector does
                pack(packed, {b[begin] + column, b.stride}, count, vectors, last);
            else
                factors = {b[begin] + column, b.stride};
            const int next = column + vectors * W, shares = ceil_div(count, tiles.count);
            for (int i = 0; i < tiles.count; ++i) {
                if (!Turned && next < columns)  // the next panel, while the arithmetic is busy
                    for (int k = i * shares; k < std::min(count, (i + 1) * shares); ++k) {
                        __builtin_prefetch(b[begin + k] + next, 0, 2);
                        __builtin_prefetch(b[begin + k] + next + (vectors * W - 1), 0, 2);
                    }
                const int row = ranges.begin(range) + tiles.begin(i);
                const Rows<T> to{c[row] + column, c.stride};
                Rows<const T> from{start.columns ? start.columns + column : zeros, 0};
                if (depth || start.resume) from = {to.data, to.stride};
                alignas(64) T filled[kMostSumRows][kSumVectors * W];
                if (!depth && start.rows) {
                    for (int m = 0; m < tiles.size(i); ++m) std::fill_n(filled[m], vectors * W, start.rows[row + m]);
                    from = {filled[0], kSumVectors * W};
                }
                multiply_tile<T, Across>(tiles.size(i), vectors)(
                    to, from, {Across ? a[begin] + row : a[row] + begin, a.stride}, factors, count, last);
            }
        }
    });
}

// ---- the layer's three passes

// With fewer rows of x, turning w costs more than summing over lanes.
template <typename T>
constexpr int kFewRows = kVectorBytes == 64 && sizeof(T) == 4 ? 16 : 32;

template <typename T>
void linear(Rows<T> y, Rows<const T> x, Rows<const T> w, const T* bias, int n, int outputs, int inputs) {
    if (n < kFewRows<T>)
        linear_by_dots(y, x, w, bias, n, outputs, inputs);
    else
        product<T, false, true>(y, {bias}, x, w, n, outputs, inputs);
}

// y (N, O) = x (N, I) · wᵀ (O, I) + bias (O)
template <typename T>
void linear(T* y, const T* x, const T* w, const T* bias, int n, int inputs, int outputs) {
    linear<T>({y, outputs}, {x, inputs}, {w, inputs}, bias, n, outputs, inputs);
}

// dx (N, I) = dy (N, O) · w (O, I)
template <typename T>
void linear_input_gradient(T* dx, const T* dy, const T* w, int n, int inputs, int outputs) {
    product<T, false, false>({dx, inputs}, {}, {dy, outputs}, {w, inputs}, n, inputs, outputs);
}

// dw (O, I) = dyᵀ (N, O) · x (N, I); dbias (O) may be null
template <typename T>
void linear_weight_gradient(T* dw, T* dbias, const T* dy, const T* x, int n, int inputs, int outputs) {
    product<T, true, false>({dw, inputs}, {}, {dy, outputs}, {x, inputs}, outputs, inputs, n);
    if (!dbias) return;
    std::fill_n(dbias, outputs, T(0));
    for (int row = 0; row < n; ++row)
        for (int o = 0; o < outputs; ++o) dbias[o] += dy[std::ptrdiff_t(row) * outputs + o];
}

// One sample's plain step w' (O, I) = w − lr · (dy ⊗ x + decay · w), with the bits of the gradient and the update one
// after the other, though the gradient is never written; dbias (O) may be null.
template <typename T>
void linear_descent(T* next, T* dbias, const T* w, const T* dy, const T* x, int inputs, int outputs, T lr, T decay) {
    constexpr int V = kWidth<T>;
    const EvenRanges ranges(outputs, ceil_div(outputs, kDenseTasks));
    parallel(ranges.count, double(outputs) * inputs, [&](int range) {
        for (int o = ranges.begin(range); o < ranges.begin(range + 1); ++o) {
            const T* const from = w + std::ptrdiff_t(o) * inputs;
            T* const to = next + std::ptrdiff_t(o) * inputs;
            const Vector<T> factor = splat(dy[o]);
            const auto stepped = [&](Vector<T> old, Vector<T> input) {
                return old - lr * (rounded(factor * input) + decay * old);
            };
            int i = 0;
            for (; i + V <= inputs; i += V) store(to + i, stepped(load(from + i), load(x + i)));
            const int rest = inputs - i;
            if (rest) store_part(to + i, stepped(load_part(from + i, rest), load_part(x + i, rest)), rest);
        }
    });
    for (int o = 0; dbias && o < outputs; ++o) dbias[o] = T(0) + dy[o];
}

// ---- many layers side by side, each with a matrix of its own: p (U, B, I), w (B, O, I), y (U, B, O)

template <typename T>
void blocks(T* y, const T* p, const T* w, int uses, int count, int outputs, int inputs) {
    const auto across = [count](auto* data, int block, int size) {
        return Rows<std::remove_pointer_t<decltype(data)>>{data + std::ptrdiff_t(block) * size,
                                                           std::ptrdiff_t(count) * size};
    };
    parallel(count, count * dense_operations(uses, outputs, inputs), [&](int b) {
        const Rows<const T> own{w + std::ptrdiff_t(b) * outputs * inputs, inputs};
        linear<T>(across(y, b, outputs), across(p, b, inputs), own, nullptr, uses, outputs, inputs);
    });
}

// dp (U, B, I) from δ (U, B, O) and w (B, O, I)
template <typename T>
void blocks_input_gradient(T* dp, const T* delta, const T* w, int uses, int count, int outputs, int inputs) {
    const auto across = [count](auto* data, int block, int size) {
        return Rows<std::remove_pointer_t<decltype(data)>>{data + std::ptrdiff_t(block) * size,
                                                           std::ptrdiff_t(count) * size};
    };
    parallel(count, count * dense_operations(uses, outputs, inputs), [&](int b) {
        const Rows<const T> own{w + std::ptrdiff_t(b) * outputs * inputs, inputs};
        product<T, false, false>(across(dp, b, inputs), {}, across(delta, b, outputs), own, uses, inputs, outputs);
    });
}

// total (kept, B, O, I) = Σ over uses of δ (kept, uses, B, O) ⊗ p (kept, uses, B, I)
template <typename T>
void outer_sum(T* total, const T* delta, const T* p, int kept, int uses, int count, int outputs, int inputs) {
    const double each = count * dense_operations(uses, outputs, inputs);
    parallel(kept, kept * each, [&](int k) {
        parallel(count, each, [&](int b) {
            const std::ptrdiff_t first = std::ptrdiff_t(k) * uses * count + b, to = std::ptrdiff_t(k) * count + b;
            product<T, true, false>({total + to * outputs * inputs, inputs}, {},
                                    {delta + first * outputs, std::ptrdiff_t(count) * outputs},
                                    {p + first * inputs, std::ptrdiff_t(count) * inputs}, outputs, inputs, uses);
        });
    });
}

}  // namespace
}  // namespace sharedgrad
