// Products of matrices: a tile of sums whose lanes are neighbouring columns stays in registers while the terms go by.
// The factors are packed before, so that a tile reads two streams wherever the matrices' rows lie: the first one once
// for all, the second as many columns at a time as stay in the first-level cache while all rows meet them.
#pragma once

#include "pack.hpp"

namespace sharedgrad {
namespace {

using ProductMemory = Owner<kInputs, kCells>;

// A matrix, as it lies or turned: one of the two steps is 1. Rows of one block of many lie apart.
template <typename T>
struct Matrix {
    T* data;
    std::ptrdiff_t row, column = 1;
    T* operator[](std::ptrdiff_t i) const { return data + i * row; }
    Matrix turned() const { return {data, column, row}; }
    Matrix from(std::ptrdiff_t i, std::ptrdiff_t j) const { return {data + i * row + j * column, row, column}; }
};

// What a product begins with: a number for each column or each row, what is there already, or nothing; and what becomes
// of it: ReLU, or back through the ReLU whose output is `gate`.
template <typename T>
struct Ends {
    const T *columns = nullptr, *rows = nullptr;
    bool add = false, relu = false;
    Matrix<const T> gate = {};
};

template <typename T>
constexpr int kProductRows = std::min(kVectorBytes == 64 ? 8 : 4, kWidth<T>);
constexpr int kProductVectors = 3;  // of columns in a tile; a single row's is as wide as the registers hold
template <typename T>
constexpr int vectors_of_rows(int rows) {
    return rows == 1 ? kProductRows<T> * kProductVectors : kProductVectors;
}
constexpr int kDepth = 256;                       // terms after which sums are stored
constexpr int kPanel = 24 * 1024 / kVectorBytes;  // vectors of the second factor that are packed at a time
constexpr int kLeastRows = 64;                    // for fewer it is not packed once more
constexpr int kPacked = 1 << 22;                  // numbers of the first factor that are packed at a time
constexpr int kDenseTasks = 16;                   // enough for the threads to share evenly

// Vectors of neighbouring columns, filled up with zeros: to[v · step + k · lanes + lane].
template <typename T>
void pack(T* to, std::ptrdiff_t step, const Matrix<const T>& m, int terms, int columns) {
    constexpr int W = kWidth<T>;
    if (m.column == 1) {
        for (int k = 0; k < terms; ++k)
            vectors_of<T>(columns, [&, from = m[k]](auto i, auto n, int) {
                store(to + i / W * step + k * W, load_part(from + i, n));
            });
        return;
    }
    for (int first = 0; first < columns; first += W) {
        const T* from[W];
        for (int j = 0; j < W; ++j) from[j] = m.from(0, std::min(first + j, columns - 1)).data;
        interleave<T>(to + first / W * step, from, terms, std::min(W, columns - first));
    }
}

// Asks for one of some parts of a matrix, while the arithmetic is busy.
template <typename T>
void prefetch(const Matrix<const T>& m, int rows, int columns, int part, int parts) {
    if (m.column != 1) return prefetch(m.turned(), columns, rows, part, parts);
    const int share = ceil_div(rows, parts), end = std::min(rows, (part + 1) * share);
    for (int i = part * share; i < end; ++i)
        for (int j = 0; j < columns; j += 64 / int(sizeof(T))) __builtin_prefetch(m[i] + j, 0, 2);
}

// What all tiles of some columns have in common.
template <typename T>
struct Tiles {
    Matrix<T> c;
    Ends<T> ends;
    const T *a, *b;                                    // of the first term
    std::ptrdiff_t a_step, a_panel, b_step, b_vector;  // from term to term; from one vector of rows or columns on
    int terms;
};

// The tile of M rows and V vectors, of the last one so many columns. (Inlined into a loop, GCC spills the sums.)
template <typename T, int M, int V>
[[gnu::noinline]] void multiply_tile(const Tiles<T>& t, int row, int vector, int last) {
    constexpr int W = kWidth<T>;
    const std::ptrdiff_t column = std::ptrdiff_t(vector) * W;
    const Matrix<T> c = t.c.from(row, column);
    const auto each = [](const auto& function) {
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 24
            for (int v = 0; v < V; ++v) function(m, v);
    };
    const auto read = [last](const T* from, int v) {
        return v + 1 < V ? load(from + v * W) : load_part(from + v * W, last);
    };
    Vector<T> sum[M][V];
    each([&](int m, int v) {
        sum[m][v] = t.ends.add       ? read(c[m], v)
                    : t.ends.columns ? read(t.ends.columns + column, v)
                                     : splat(t.ends.rows ? t.ends.rows[row + m] : T(0));
    });
    const T *a = t.a + row / W * t.a_panel + row % W, *b = t.b + vector * t.b_vector;
    const std::ptrdiff_t a_step = t.a_step, b_step = t.b_step, b_vector = t.b_vector;
    for (int k = t.terms; k > 0; --k, a += a_step, b += b_step) {
        Vector<T> columns[V];
#pragma GCC unroll 24
        for (int v = 0; v < V; ++v) columns[v] = in_register(load(b + v * b_vector));
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m) {
            const Vector<T> factor = splat(a[m]);
#pragma GCC unroll 24
            for (int v = 0; v < V; ++v) sum[m][v] += factor * columns[v];
        }
    }
    if (t.ends.relu) each([&](int m, int v) { sum[m][v] = relu_of<T>(sum[m][v]); });
    if (t.ends.gate.data)
        each([&](int m, int v) { sum[m][v] = relu_gate<T>(sum[m][v], read(t.ends.gate[row + m] + column, v)); });
    if (last == W)
        each([&](int m, int v) { store(c[m] + v * W, sum[m][v]); });
    else
        each([&](int m, int v) { store_part(c[m] + v * W, sum[m][v], v + 1 < V ? W : last); });
}

// Some rows, tile by tile from left to right; the last tile is as wide as is left.
template <typename T, int M = kProductRows<T>, int V = vectors_of_rows<T>(M)>
void multiply(const Tiles<T>& t, int rows, int row, int vector, int vectors, int last) {
    if constexpr (M > 1)
        if (rows < M) return multiply<T, M - 1>(t, rows, row, vector, vectors, last);
    // V + 1 become V − 1 and 2: a single vector's sums would wait for each other.
    for (; vector + V <= vectors && (V == 1 || vectors - vector != V + 1); vector += V)
        multiply_tile<T, M, V>(t, row, vector, vector + V == vectors ? last : kWidth<T>);
    if constexpr (V > 1)
        if (vector < vectors) multiply<T, M, V - 1>(t, rows, row, vector, vectors, last);
}

// c (M, J) = a (M, K) · b (K, J), cut into tasks, about as many as are wanted. One `a` may meet many matrices b.
template <typename T>
class Product {
  public:
    Product(const Matrix<const T>& a, int rows, int columns, int terms, int wanted)
        : rows_(rows),
          columns_(columns),
          terms_(terms),
          depths_(std::max(terms, 1), kDepth),
          chunks_(ceil_div(columns, W), most(wanted)),
          ranges_(ceil_div(rows, R),
                  std::max(kLeastRows / R, ceil_div(ceil_div(rows, R), ceil_div(wanted, chunks_.count)))),
          a_(a.data),
          a_step_(a.column) {
        if (rows == 1) return;  // it lies in one piece
        T* const packed = ProductMemory::memory<T, kInputs>(std::ptrdiff_t(ceil_div(rows, W)) * W * terms);
        pack(packed, std::ptrdiff_t(terms) * W, a.turned(), terms, rows);
        a_ = packed, a_step_ = W;
    }

    int tasks() const { return chunks_.count * ranges_.count; }

    void run(int task, const Matrix<T>& c, const Matrix<const T>& b, const Ends<T>& ends) const {
        const int chunk = task % chunks_.count, range = task / chunks_.count;
        const int column = chunks_.begin(chunk) * W, vectors = chunks_.size(chunk);
        const int count = std::min(vectors * W, columns_ - column), last = count - (vectors - 1) * W;
        Tiles<T> t{c.from(0, column), ends, nullptr, nullptr, a_step_, std::ptrdiff_t(terms_) * W, b.row, W, 0};
        if (ends.columns) t.ends.columns += column;
        for (int depth = 0; depth < depths_.count; ++depth) {
            const int first = depths_.begin(depth);
            const bool deeper = depth + 1 < depths_.count;
            const Matrix<const T> own = b.from(first, column);
            t.terms = std::min(terms_, depths_.size(depth));
            t.a = a_ + first * a_step_, t.b = own.data;
            if (!few() || b.column != 1 || last < W) {
                t.b_step = W, t.b_vector = (t.terms | 1) * W;
                T* const packed = ProductMemory::memory<T, kCells>(vectors * t.b_vector);
                pack(packed, t.b_vector, own, t.terms, count);
                t.b = packed;
            }
            t.ends.add = ends.add || depth > 0;
            t.ends.relu = ends.relu && !deeper;
            t.ends.gate.data = ends.gate.data && !deeper ? ends.gate.data + column : nullptr;
            const Matrix<const T> next = deeper ? own.from(t.terms, 0) : b.from(0, column + count);
            const int first_tile = ranges_.begin(range), tiles = ranges_.size(range);
            for (int i = first_tile; i < first_tile + tiles; ++i) {
                prefetch(next, depths_.size(deeper ? depth + 1 : 0), count, i - first_tile, tiles);
                multiply<T>(t, rows_ - i * R, i * R, 0, vectors, last);
            }
        }
    }

  private:
    static constexpr int W = kWidth<T>, R = kProductRows<T>, V = kProductVectors;

    bool few() const { return rows_ <= 2 * R; }  // to read b where it lies
    // Vectors of columns that a task takes at most.
    int most(int wanted) const {
        const int near = few() ? vectors_of_rows<T>(rows_) : std::max(V, kPanel / depths_.size(0) / V * V);
        return std::min(near, std::max(V, ceil_div(ceil_div(columns_, W), wanted)));
    }

    int rows_, columns_, terms_;
    EvenRanges depths_, chunks_, ranges_;
    const T* a_;
    std::ptrdiff_t a_step_;  // from term to term
};

// A vector's worth of multiplications counted as one operation, as in a convolution; fetching the weights takes as long
// as multiplying three rows with them.
inline double dense_operations(int n, int outputs, int inputs) { return (n + 3.0) * outputs * inputs / 8; }

// c (M, J) = ends + a (M, K) · b (K, J), with ends that are the same for all rows
template <typename T>
void product(const Matrix<T>& c, const Ends<T>& ends, const Matrix<const T>& a, const Matrix<const T>& b, int rows,
             int columns, int terms) {
    const int most = std::max(kLeastRows, kPacked / std::max(1, terms));
    for (int first = 0; columns && first < rows; first += most) {
        const Product<T> all(a.from(first, 0), std::min(most, rows - first), columns, terms, kDenseTasks);
        parallel(all.tasks(), dense_operations(rows, columns, terms),
                 [&](int task) { all.run(task, c.from(first, 0), b, ends); });
    }
}

// ---- of matrices that both run along the terms: for few rows or columns neither is packed; lanes are parts of one sum

// function(row) for all rows, cut into tasks
template <typename Function>
void rows_in_tasks(int rows, double operations, const Function& function) {
    const EvenRanges ranges(rows, ceil_div(rows, kDenseTasks));
    parallel(ranges.count, operations, [&](int range) {
        for (int row = ranges.begin(range); row < ranges.begin(range + 1); ++row) function(row);
    });
}

constexpr int kDotRows = 4, kDotColumns = kTileColumns;
constexpr int kDotBlock = 2 * kDotColumns;  // rows of w that stay in the caches while x passes
constexpr int kDotLength = 1024;            // terms whose sum is taken before it joins the others: it rounds less

// A tile of R × C; beyond the last row of a factor the last one is repeated.
template <typename T, int R, int C>
void dots(const Matrix<T>& c, const Ends<T>& ends, const Matrix<const T>& a, const Matrix<const T>& b, int rows,
          int columns, int terms) {
    const T *left[R], *right[C];
    for (int i = 0; i < R; ++i) left[i] = a[std::min(i, rows - 1)];
    for (int j = 0; j < C; ++j) right[j] = b[std::min(j, columns - 1)];
    const EvenRanges lengths(std::max(terms, 1), kDotLength);
    for (int length = 0; length < lengths.count; ++length) {
        Vector<T> sum[R * C] = {};
        vectors_of<T>(std::min(terms, lengths.size(length)), [&, at = lengths.begin(length)](auto i, auto n, int) {
            Vector<T> v[C];
            for (int j = 0; j < C; ++j) v[j] = load_part(right[j] + at + i, n);
            for (int r = 0; r < R; ++r) {
                const Vector<T> u = load_part(left[r] + at + i, n);
                for (int j = 0; j < C; ++j) sum[r * C + j] += u * v[j];
            }
        });
        T sums[R * C];
        sum_lanes(sums, sum);
        for (int i = 0; i < std::min(R, rows); ++i)
            for (int j = 0; j < std::min(C, columns); ++j)
                c[i][j] = (length || ends.add ? c[i][j] : ends.columns ? ends.columns[j] : T(0)) + sums[i * C + j];
    }
}

// c (M, J) = ends + a (M, K) · bᵀ (J, K), with what is there already or a number for each column
template <typename T>
void dot_products(const Matrix<T>& c, const Ends<T>& ends, const Matrix<const T>& a, const Matrix<const T>& b, int rows,
                  int columns, int terms) {
    if (rows == 0 || columns == 0) return;
    const EvenRanges blocks(columns, kDotBlock);
    rows_in_tasks(blocks.count, dense_operations(rows, columns, terms), [&](int block) {
        const int first = blocks.begin(block), last = blocks.begin(block + 1);
        const auto tile = [&](auto dots, int row, int column) {
            dots(c.from(row, column), {ends.columns ? ends.columns + column : nullptr, nullptr, ends.add},
                 a.from(row, 0), b.from(column, 0), rows - row, last - column, terms);
        };
        for (int row = 0; row < rows;) {
            if (rows - row < kDotRows - 1) {  // one row at a time, with more columns
                tile(dots<T, 1, kDotBlock>, row++, first);
                continue;
            }
            for (int column = first; column < last; column += kDotColumns)
                tile(dots<T, kDotRows, kDotColumns>, row, column);
            row += kDotRows;
        }
    });
}

}  // namespace
}  // namespace sharedgrad
