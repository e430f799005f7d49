// Products of matrices as a dense layer needs them; all arrays row-major: x (N, I), w (O, I), y (N, O).
//
//   forward          y[n,o]  = b[o] + Σ_i x[n,i] · w[o,i]   both factors run along i: lanes are parts of one sum,
//                                                            or, for many rows, w is turned first
//   input gradient   dx[n,i] = Σ_o dy[n,o] · w[o,i]         rows of w run along i: lanes are different results
//   weight gradient  dw[o,i] = Σ_n dy[n,o] · x[n,i]         rows of x run along i: likewise
//
// Each result is summed in an order that the shapes decide: its place in the batch changes no bit.
#pragma once

#include <algorithm>

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

// function(row) for all rows, cut into tasks
template <typename Function>
void rows_in_tasks(int rows, double operations, const Function& function) {
    const EvenRanges ranges(rows, ceil_div(rows, kDenseTasks));
    parallel(ranges.count, operations, [&](int range) {
        for (int row = ranges.begin(range); row < ranges.begin(range + 1); ++row) function(row);
    });
}

// A vector's worth of multiplications counted as one operation, as in a convolution; fetching the weights takes as long
// as multiplying three rows with them.
inline double dense_operations(int n, int outputs, int inputs) { return (n + 3.0) * outputs * inputs / 8; }

// ---- forward for few rows: a tile of dot products, w read as it lies

#if defined(__AVX512F__)
constexpr int kDotRows = 4, kDotColumns = 4;
#else
constexpr int kDotRows = 4, kDotColumns = 3;
#endif
constexpr int kDotBlock = 2 * kDotColumns;  // rows of w that stay in the caches while x passes
constexpr int kDotLength = 1024;            // terms whose sum is taken before it joins the others: it rounds less

// y[n][o] = bias[o] + Σ x[n][i] · w[o][i] for a tile of R × C; beyond the last row the last one is repeated
template <typename T, int R, int C>
void dots(Rows<T> y, Rows<const T> x, Rows<const T> w, int terms, int rows, int columns, const T* bias) {
    const T *from[R], *weights[C];
    for (int r = 0; r < R; ++r) from[r] = x[std::min(r, rows - 1)];
    for (int c = 0; c < C; ++c) weights[c] = w[std::min(c, columns - 1)];
    const EvenRanges lengths(std::max(terms, 1), kDotLength);
    for (int length = 0; length < lengths.count; ++length) {
        Vector<T> sum[R * C] = {};
        vectors_of<T>(std::min(terms, lengths.size(length)), [&, at = lengths.begin(length)](auto i, auto n, int) {
            Vector<T> v[C];
            for (int c = 0; c < C; ++c) v[c] = load_part(weights[c] + at + i, n);
            for (int r = 0; r < R; ++r) {
                const Vector<T> u = load_part(from[r] + at + i, n);
                for (int c = 0; c < C; ++c) sum[r * C + c] += u * v[c];
            }
        });
        T sums[R * C];
        sum_lanes(sums, sum);
        for (int r = 0; r < std::min(R, rows); ++r)
            for (int c = 0; c < std::min(C, columns); ++c)
                y[r][c] = (length ? y[r][c] : bias ? bias[c] : T(0)) + sums[r * C + c];
    }
}

template <typename T>
void linear_by_dots(Rows<T> y, Rows<const T> x, Rows<const T> w, const T* bias, int n, int outputs, int inputs) {
    if (n == 0 || outputs == 0) return;
    const EvenRanges blocks(outputs, kDotBlock);
    rows_in_tasks(blocks.count, dense_operations(n, outputs, inputs), [&](int block) {
        const int first = blocks.begin(block), last = blocks.begin(block + 1);
        const auto tile = [&](auto dots, int row, int column) {
            dots({y[row] + column, y.stride}, {x[row], x.stride}, {w[column], w.stride}, inputs, n - row, last - column,
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
// A single row uses every panel once: then they are as wide as the registers hold.
constexpr int sum_vectors(int rows) { return rows == 1 ? kAccumulating : kSumVectors; }

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

// The same for so many rows and vectors.
template <typename T, bool Across, int V = kAccumulating, int M = sum_rows(V), typename... Rest>
void multiply_tile(int rows, int vectors, const Rest&... rest) {
    if constexpr (V > 1)
        if (vectors < V) return multiply_tile<T, Across, V - 1>(rows, vectors, rest...);
    if constexpr (M > 1)
        if (rows < M) return multiply_tile<T, Across, V, M - 1>(rows, vectors, rest...);
    multiply<T, Across, M, V>(rest...);
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
    if (Across && terms == 1 && !start.resume)  // nothing to add up: write row by row
        return rows_in_tasks(rows, double(rows) * columns, [&](int m) {
            vectors_of<T>(columns, [to = c[m], from = b[0], factor = splat(a[0][m])](auto i, auto n, int) {
                store_part(to + i, factor * load_part(from + i, n), n);
            });
        });
    constexpr int W = kWidth<T>;
    static constexpr T zeros[kAccumulating * W] = {};
    const int most = sum_vectors(rows);
    const EvenRanges panels(ceil_div(columns, W), most), depths(std::max(terms, 1), kDepth * kSumVectors / most);
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
                alignas(64) T filled[kAccumulating * W];
                if (!depth && start.rows) {
                    for (int m = 0; m < tiles.size(i); ++m)
                        std::fill_n(filled + m * vectors * W, vectors * W, start.rows[row + m]);
                    from = {filled, vectors * W};
                }
                const Rows<const T> own{Across ? a[begin] + row : a[row] + begin, a.stride};
                multiply_tile<T, Across>(tiles.size(i), vectors, to, from, own, factors, count, last);
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

// Plain vectors (N, K) as a matrix.
template <typename T>
Rows<const T> matrix(const Map<T>& m) {
    return {m.data, m.channels};
}

// y (N, O) = x (N, I) · wᵀ (O, I) + bias (O)
template <typename T>
void linear(const Map<T>& y, const Map<T>& x, const T* w, const T* bias) {
    linear<T>({y.data, y.channels}, matrix(x), {w, x.channels}, bias, y.samples, y.channels, x.channels);
}

// dx (N, I) = dy (N, O) · w (O, I)
template <typename T>
void linear_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w) {
    product<T, false, false>({dx.data, dx.channels}, {}, matrix(dy), {w, dx.channels}, dx.samples, dx.channels,
                             dy.channels);
}

#if defined(__AVX512F__)
// Past the caches: what is written will not be read soon. `to` lies on a vector's boundary.
inline void stream(float* to, Vector<float> v) { _mm512_stream_ps(to, v); }
inline void stream(double* to, Vector<double> v) { _mm512_stream_pd(to, v); }
inline void end_of_stream() { _mm_sfence(); }
#else
template <typename T>
inline void stream(T* to, Vector<T> v) {
    store(to, v);
}
inline void end_of_stream() {}
#endif

constexpr std::size_t kStreamed = std::size_t(1) << 22;  // bytes from which on the caches would not hold them

// dw (N, O, I) = δ_n ⊗ x_n
template <typename T>
void outer_products(T* dw, const Map<T>& dy, const Map<T>& x) {
    const std::size_t size = std::size_t(dy.samples) * dy.channels * x.channels;
    const bool streamed =
        size * sizeof(T) >= kStreamed && x.channels % kWidth<T> == 0 && std::uintptr_t(dw) % kVectorBytes == 0;
    parallel(dy.samples, double(size) / 4, [&](int n) {
        const T* const from = x.cell(n, 0, 0);
        T* to = dw + std::ptrdiff_t(n) * dy.channels * x.channels;
        for (int o = 0; o < dy.channels; ++o, to += x.channels)
            vectors_of<T>(x.channels, [&, delta = splat(dy.cell(n, o, 0)[0])](auto i, auto count, int) {
                const Vector<T> v = delta * load_part(from + i, count);
                streamed ? stream(to + i, v) : store_part(to + i, v, count);
            });
        if (streamed) end_of_stream();
    });
}

// dw (O, I) = dyᵀ (N, O) · x (N, I) or by sample; dbias (O), likewise, may be null
template <typename T>
void linear_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, bool by_sample) {
    if (by_sample) {
        outer_products(dw, dy, x);
        if (dbias) std::copy_n(dy.data, dy.size(), dbias);
        return;
    }
    product<T, true, false>({dw, x.channels}, {}, matrix(dy), matrix(x), dy.channels, x.channels, dy.samples);
    if (!dbias) return;
    std::fill_n(dbias, dy.channels, T(0));
    for (int n = 0; n < dy.samples; ++n)
        for (int o = 0; o < dy.channels; ++o) dbias[o] += matrix(dy)[n][o];
}

// One sample's plain step w' (O, I) = w − lr · (dy ⊗ x + decay · w), with the bits of the gradient and the update one
// after the other, though the gradient is never written; dbias (O) may be null. Settings as for sgd.
template <typename T>
void linear_descent(T* next, const T* w, T* dbias, const Map<T>& dy, const Map<T>& x, const double* settings) {
    const T lr = T(settings[0]), decay = T(settings[2]);
    rows_in_tasks(dy.channels, double(dy.channels) * x.channels, [&](int o) {
        const std::ptrdiff_t row = std::ptrdiff_t(o) * x.channels;
        vectors_of<T>(x.channels, [&, factor = splat(dy.data[o])](auto i, auto n, int) {
            const Vector<T> old = load_part(w + row + i, n);
            store_part(next + row + i, old - lr * (rounded(factor * load_part(x.data + i, n)) + decay * old), n);
        });
    });
    for (int o = 0; dbias && o < dy.channels; ++o) dbias[o] = T(0) + dy.data[o];
}

// ---- many layers side by side, each with a matrix of its own: p (U, B, I), w (B, O, I), y (U, B, O)

// Block b of the vectors (U, B, size): (U, size).
template <typename T>
Rows<T> block_of(T* data, int b, int count, int size) {
    return {data + std::ptrdiff_t(b) * size, std::ptrdiff_t(count) * size};
}

template <typename T>
void blocks(const Map<T>& y, const Map<T>& p, const T* w) {
    const int uses = p.samples, count = p.channels, outputs = y.width, inputs = p.width;
    parallel(count, count * dense_operations(uses, outputs, inputs), [=](int b) {
        linear<T>(block_of(y.data, b, count, outputs), block_of<const T>(p.data, b, count, inputs),
                  {w + std::ptrdiff_t(b) * outputs * inputs, inputs}, nullptr, uses, outputs, inputs);
    });
}

// dp (U, B, I) from δ (U, B, O) and w (B, O, I)
template <typename T>
void blocks_input_gradient(const Map<T>& dp, const Map<T>& delta, const T* w) {
    const int uses = dp.samples, count = dp.channels, outputs = delta.width, inputs = dp.width;
    parallel(count, count * dense_operations(uses, outputs, inputs), [=](int b) {
        product<T, false, false>(block_of(dp.data, b, count, inputs), {},
                                 block_of<const T>(delta.data, b, count, outputs),
                                 {w + std::ptrdiff_t(b) * outputs * inputs, inputs}, uses, inputs, outputs);
    });
}

// total (kept, B, O, I) = Σ over uses of δ (kept, uses, B, O) ⊗ p (kept, uses, B, I)
template <typename T>
void outer_sum(const Map<T>& total, const Map<T>& delta, const Map<T>& p) {
    const int kept = delta.samples, uses = delta.channels, count = delta.height, outputs = delta.width;
    const int inputs = p.width;
    parallel(kept * count, kept * count * dense_operations(uses, outputs, inputs), [=](int task) {
        const std::ptrdiff_t first = std::ptrdiff_t(task / count) * uses * count;
        product<T, true, false>({total.data + std::ptrdiff_t(task) * outputs * inputs, inputs}, {},
                                block_of<const T>(delta.data + first * outputs, task % count, count, outputs),
                                block_of<const T>(p.data + first * inputs, task % count, count, inputs), outputs,
                                inputs, uses);
    });
}

}  // namespace
}  // namespace sharedgrad
