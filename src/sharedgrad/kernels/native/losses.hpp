// Softmax, alone and with the cross-entropy behind it, row by row: scores (N, C).
//
//   p = e^(x − max x) / Σ e^(x − max x)
#pragma once

#include <cmath>
#include <limits>
#include <stdexcept>

#include "elementary.hpp"
#include "layout.hpp"

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

// row(range, n) for the rows of a map (N, C)
template <typename T, typename Row>
void rows_in_ranges(const Map<T>& map, const Row& row) {
    const int rows = map.samples, classes = map.channels;
    if (rows == 0 || classes == 0) return;
    const EvenRanges ranges(rows, ceil_div(rows, kRowRanges));
    parallel(ranges.count, kExponentialCost * rows * classes, [&](int range) {
        for (int n = ranges.begin(range); n < ranges.begin(range) + ranges.size(range); ++n) row(range, n);
    });
}

template <typename T>
void softmax(const Map<T>& y, const Map<T>& x) {
    rows_in_ranges(y, [&](int, int n) {
        T largest, *p = y.cell(n, 0, 0);
        const T sum = exponentials(p, x.cell(n, 0, 0), y.channels, largest);
        for (int c = 0; c < y.channels; ++c) p[c] /= sum;
    });
}

// dx_i = y_i · (dy_i − Σ_j dy_j y_j)
template <typename T>
void softmax_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& y) {
    rows_in_ranges(y, [&](int, int n) {
        const T *const delta = dy.cell(n, 0, 0), *const p = y.cell(n, 0, 0);
        Vector<T> products[1] = {};
        for (int c = 0; c < y.channels; c += kWidth<T>) {
            const int count = std::min(kWidth<T>, y.channels - c);
            products[0] += load_part(delta + c, count) * load_part(p + c, count);
        }
        T inner;
        sum_lanes(&inner, products);
        for (int c = 0; c < y.channels; ++c) dx.cell(n, c, 0)[0] = p[c] * (delta[c] - inner);
    });
}

// The sum over all rows of −Σ_c t_c · log p_c, where t is 1 − smoothing + smoothing / C at the row's class and
// smoothing / C elsewhere, and upstream = (p − t) / count. A class with t = 0 costs nothing, however wrong it is.
// settings: smoothing, count, and where the sum goes. Throws where a label is no class, or where the sum must be finite
// and is not: nothing that comes behind it in a program is done then.
template <typename T>
void cross_entropy(const Map<T>& upstream, const Map<T>& scores, const std::int64_t* labels, double* settings,
                   bool finite) {
    const int classes = scores.channels;
    for (int n = 0; n < scores.samples; ++n)
        if (labels[n] < 0 || labels[n] >= classes) throw std::out_of_range("label");
    const double smoothing = settings[0], count = settings[1];
    double losses[kRowRanges] = {};
    const T elsewhere = T(smoothing / classes), at_class = elsewhere + T(1 - smoothing);
    rows_in_ranges(scores, [&](int range, int n) {
        const T* const x = scores.cell(n, 0, 0);
        T largest, *up = upstream.cell(n, 0, 0);
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
    settings[2] = total;
    if (finite && !std::isfinite(total)) throw std::domain_error("loss");
}

}  // namespace
}  // namespace sharedgrad
