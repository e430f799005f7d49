// Softmax, alone and with the cross-entropy behind it, row by row: scores (N, C).
//
//   p = e^(x − max x) / Σ e^(x − max x)
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "elementary.hpp"
#include "even_ranges.hpp"
#include "partial.hpp"
#include "threads.hpp"

namespace sharedgrad {
namespace {

constexpr int kRowRanges = 64;          // rows are cut into so many ranges at most
constexpr double kExponentialCost = 4;  // elementwise operations that one exponential takes

// Up to a vector of the row's scores; where it ends, classes that no score reaches.
template <typename T>
inline Vector<T> scores_at(const T* row, int count) {
    if (count >= kWidth<T>) return load(row);
    return vector_of_lanes<T>([=](int l) { return l < count ? row[l] : -std::numeric_limits<T>::infinity(); });
}

// e[c] = e^(x[c] − largest), and their sum; NaN anywhere is NaN everywhere
template <typename T>
T exponentials(T* e, const T* x, int classes, T& largest) {
    constexpr int W = kWidth<T>;
    Vector<T> most = scores_at(x, classes);
    for (int c = W; c < classes; c += W) most = larger(most, scores_at(x + c, classes - c));
    largest = most[0];
    for (int l = 1; l < W; ++l) largest = larger(largest, T(most[l]));
    Vector<T> sums[1] = {};
    for (int c = 0; c < classes; c += W) {
        const Vector<T> v = exp_of_negative<T>(scores_at(x + c, classes - c) - largest);
        sums[0] += v;
        store_part(e + c, v, std::min(W, classes - c));
    }
    T sum;
    sum_lanes(&sum, sums);
    return sum;
}

template <typename Row>
void rows_in_ranges(int rows, int classes, const Row& row) {
    if (rows == 0 || classes == 0) return;
    const EvenRanges ranges(rows, ceil_div(rows, kRowRanges));
    parallel(ranges.count, kExponentialCost * rows * classes, [&](int range) {
        for (int n = ranges.begin(range); n < ranges.begin(range) + ranges.size(range); ++n) row(range, n);
    });
}

template <typename T>
void softmax(T* y, const T* x, int rows, int classes) {
    rows_in_ranges(rows, classes, [=](int, int n) {
        T largest, *p = y + std::ptrdiff_t(n) * classes;
        const T sum = exponentials(p, x + std::ptrdiff_t(n) * classes, classes, largest);
        for (int c = 0; c < classes; ++c) p[c] /= sum;
    });
}

// dx_i = y_i · (dy_i − Σ_j dy_j y_j)
template <typename T>
void softmax_backward(T* dx, const T* dy, const T* y, int rows, int classes) {
    rows_in_ranges(rows, classes, [=](int, int n) {
        const std::ptrdiff_t at = std::ptrdiff_t(n) * classes;
        Vector<T> products[1] = {};
        for (int c = 0; c < classes; c += kWidth<T>) {
            const int count = std::min(kWidth<T>, classes - c);
            products[0] += load_part(dy + at + c, count) * load_part(y + at + c, count);
        }
        T inner;
        sum_lanes(&inner, products);
        for (int c = 0; c < classes; ++c) dx[at + c] = y[at + c] * (dy[at + c] - inner);
    });
}

// The sum over all rows of −Σ_c t_c · log p_c, where t is 1 − smoothing + smoothing / C at the row's class and
// smoothing / C elsewhere, and upstream = (p − t) / count. A class with t = 0 costs nothing, however wrong it is.
template <typename T>
double cross_entropy(T* upstream, const T* scores, const std::int64_t* labels, int rows, int classes, double smoothing,
                     double count) {
    double losses[kRowRanges] = {};
    const T elsewhere = T(smoothing / classes), at_class = elsewhere + T(1 - smoothing);
    rows_in_ranges(rows, classes, [&](int range, int n) {
        const T* x = scores + std::ptrdiff_t(n) * classes;
        T largest, *up = upstream + std::ptrdiff_t(n) * classes;
        const T sum = exponentials(up, x, classes, largest);
        const auto label = labels[n];
        const double log_sum = std::log(double(sum)) + largest;
        const T p = up[label] / sum;
        for (int c = 0; c < classes; ++c) up[c] = (up[c] / sum - elsewhere) / T(count);
        up[label] = (p - at_class) / T(count);
        double loss = (1 - smoothing) * (log_sum - x[label]);
        if (smoothing > 0)
            for (int c = 0; c < classes; ++c) loss += smoothing / classes * (log_sum - x[c]);
        losses[range] += loss;
    });
    double total = 0;
    for (const double loss : losses) total += loss;
    return total;
}

}  // namespace
}  // namespace sharedgrad
