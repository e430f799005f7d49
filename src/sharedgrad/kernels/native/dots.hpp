// Products of matrices that both run along the terms, read as they lie: lanes are parts of one sum. For few rows or few
// columns that is faster than to turn one of them.
#pragma once

#include "product.hpp"

namespace sharedgrad {
namespace {

// function(row) for all rows, cut into tasks
template <typename Function>
void rows_in_tasks(int rows, double operations, const Function& function) {
    const EvenRanges ranges(rows, ceil_div(rows, kDenseTasks));
    parallel(ranges.count, operations, [&](int range) {
        for (int row = ranges.begin(range); row < ranges.begin(range + 1); ++row) function(row);
    });
}

#if defined(__AVX512F__)
constexpr int kDotRows = 4, kDotColumns = 4;
#else
constexpr int kDotRows = 4, kDotColumns = 3;
#endif
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
