// Batch normalization, channel by channel: x̂ = (x − mean) / √(variance + ε), y = weight · x̂ + bias.
//
// A task is one channel of all samples: what its first pass reads is still in the cache when the second one comes.
#pragma once

#include <cmath>

#include "layout.hpp"

namespace sharedgrad {
namespace {

constexpr int kSeveral = 4;     // sums side by side, so that none waits for the one before it
constexpr int kTogether = 128;  // vectors whose mean is taken before their squares are: they stay in the first cache

template <typename T>
inline Vector<T> sum_of(const Vector<T> (&v)[kSeveral]) {
    Vector<T> sum = v[0];
    for (int k = 1; k < kSeveral; ++k) sum += v[k];
    return sum;
}

// Ones in the lanes for whose number `holds` is true.
template <typename T, typename Holds>
Vector<T> mask_of(const Holds& holds) {
    T lanes[kWidth<T>];
    for (int l = 0; l < kWidth<T>; ++l) lanes[l] = T(holds(l));
    return load(lanes);
}

// Ones in the lanes that hold samples. Padding must not enter a sum, and what flows back into it must stay zero.
template <typename T>
Vector<T> alive(const Map<T>& map, int block) {
    return mask_of<T>([&](int l) { return l % map.lanes < map.alive(block); });
}

template <typename T>
inline Vector<T> where(Vector<T> mask, Vector<T> v) {
    return mask > T(0) ? v : Vector<T>{};  // not a product: NaN in padding would come through
}

// Mean and (biased) variance over samples and positions, in one pass over memory: each lane of a few rows has its mean
// and its squared differences from that, which join those of the rows before (Chan, Golub & LeVeque 1983).
template <typename T>
void channel_statistics(T& mean, T& variance, const Map<T>& x, int c) {
    constexpr int V = kWidth<T>;
    const int whole = int(x.used() / V), rest = int(x.used() % V);
    const Vector<T> rest_mask = mask_of<T>([=](int l) { return l < rest; });
    const Vector<T> in_row = splat(T(whole)) + rest_mask;  // numbers of one row in each lane
    const Vector<T> share = in_row > T(0) ? T(1) / in_row : Vector<T>{};
    const int together = std::max(1, kTogether / std::max(1, whole));
    Vector<T> means = {}, squares = {};
    double rows = 0;
    for (int b = 0; b < x.blocks(); ++b) {
        const Vector<T> mask = alive(x, b);
        for (int h = 0; h < x.height; h += together) {
            const int n = std::min(together, x.height - h);
            Vector<T> sum[kSeveral] = {}, part[kSeveral] = {};
            for (int r = 0; r < n; ++r) {
                const T* row = x.cell(b, c, h + r);
                vectors_of<T, kSeveral>(x.used(),
                                        [&](auto i, auto lanes, int k) { sum[k] += load_part(row + i, lanes); });
            }
            const Vector<T> own = sum_of<T>(sum) * share * splat(T(1) / T(n));
            for (int r = 0; r < n; ++r) {
                const T* row = x.cell(b, c, h + r);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto lanes, int k) {
                    Vector<T> d = load_part(row + i, lanes) - own;
                    if (lanes < V) d = where<T>(rest_mask, d);
                    part[k] += d * d;
                });
            }
            const Vector<T> step = own - means;
            means += where<T>(mask, step * splat(T(n / (rows + n))));
            squares += where<T>(mask, sum_of<T>(part) + step * step * in_row * splat(T(rows * n / (rows + n))));
            rows += n;
        }
    }
    const Vector<T> last = alive(x, x.blocks() - 1);
    double counts[V], count = 0, sum = 0, total_squares = 0;
    for (int l = 0; l < V; ++l) {
        counts[l] = double(in_row[l]) * x.height * (x.blocks() - (last[l] > 0 ? 0 : 1));
        count += counts[l];
        sum += counts[l] * means[l];
    }
    sum /= count;
    for (int l = 0; l < V; ++l) total_squares += squares[l] + counts[l] * (means[l] - sum) * (means[l] - sum);
    mean = T(sum);
    variance = T(total_squares / count);
}

// y of one channel, as forward and (for its ReLU) backward compute it.
template <typename T>
struct Scaling {
    T scale, shift;
    Scaling(T mean, T variance, T weight, T bias, T epsilon)
        : scale(weight / std::sqrt(variance + epsilon)), shift(bias - mean * scale) {}
    Vector<T> operator()(Vector<T> x) const { return x * splat(scale) + splat(shift); }
};

// y = x̂ · weight + bias, then perhaps + shortcut, then perhaps ReLU. With Own, mean and variance are first taken from
// x.
template <typename T, bool Own>
void normalize(const Map<T>& y, const Map<T>& x, const Map<T>* shortcut, T* mean, T* variance, const T* weight,
               const T* bias, bool relu, T epsilon) {
    parallel(x.channels, 2 * x.operations(), [&](int c) {
        if (Own) channel_statistics(mean[c], variance[c], x, c);
        const Scaling<T> scaled(mean[c], variance[c], weight[c], bias[c], epsilon);
        for (int b = 0; b < x.blocks(); ++b)
            for (int h = 0; h < x.height; ++h) {
                const T* from = x.cell(b, c, h);
                const T* more = shortcut ? shortcut->cell(b, c, h) : nullptr;
                T* to = y.cell(b, c, h);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto n, int) {
                    Vector<T> v = scaled(load_part(from + i, n));
                    if (more) v += load_part(more + i, n);
                    store_part<T>(to + i, relu ? relu_of<T>(v) : v, n);
                });
                // No statistics keep padding small: normalized again and again it would grow beyond all numbers, and
                // where weights' gradients add over lanes, 0 · ∞ is NaN.
                if (x.alive(b) < x.lanes)
                    vectors_of<T>(x.used(), [&, mask = alive(x, b)](auto i, auto n, int) {
                        store_part<T>(to + i, where<T>(mask, load_part(to + i, n)), n);
                    });
            }
    });
}

// With the batch's own statistics: dweight = Σ dy·x̂, dbias = Σ dy and
//   dx = weight · inverse_std · (dy − mean(dy) − x̂ · mean(dy·x̂));
// with constant ones: dx = weight · inverse_std · dy. With `relu`, dy goes through the ReLU that followed first.
// dx may lie where dy lies.
template <typename T>
void normalize_backward(const Map<T>* dx, T* dweight, T* dbias, const Map<T>& dy, const Map<T>& x, const T* mean,
                        const T* variance, const T* weight, const T* bias, bool training, bool relu, T epsilon) {
    const double count = x.operations() / x.channels;
    parallel(x.channels, 3 * x.operations(), [&](int c) {
        const T inverse = T(1) / std::sqrt(variance[c] + epsilon);
        const Scaling<T> scaled(mean[c], variance[c], weight[c], bias[c], epsilon);
        const auto through = [&](Vector<T> up, Vector<T> in) { return relu ? relu_gate<T>(up, scaled(in)) : up; };
        double sum = 0, products = 0;
        for (int b = 0; b < x.blocks(); ++b) {
            Vector<T> part[kSeveral] = {}, product[kSeveral] = {};
            for (int h = 0; h < x.height; ++h) {
                const T *up = dy.cell(b, c, h), *from = x.cell(b, c, h);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto n, int k) {
                    const Vector<T> in = load_part(from + i, n), d = through(load_part(up + i, n), in);
                    part[k] += d;
                    product[k] += d * (in - splat(mean[c]));
                });
            }
            const Vector<T> mask = alive(x, b);
            sum += total<T>(where<T>(mask, sum_of<T>(part)));
            products += total<T>(where<T>(mask, sum_of<T>(product)));
        }
        products *= inverse;
        dweight[c] = T(products);
        dbias[c] = T(sum);
        if (!dx) return;
        const T less = training ? T(sum / count) : T(0), slope = training ? T(products / count) * inverse : T(0);
        for (int b = 0; b < x.blocks(); ++b) {
            const Vector<T> factor = splat(weight[c] * inverse), mask = alive(x, b);
            for (int h = 0; h < x.height; ++h) {
                const T *up = dy.cell(b, c, h), *from = x.cell(b, c, h);
                T* to = dx->cell(b, c, h);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto n, int) {
                    const Vector<T> in = load_part(from + i, n), d = through(load_part(up + i, n), in);
                    const Vector<T> back = (d - splat(less) - (in - splat(mean[c])) * splat(slope)) * factor;
                    store_part<T>(to + i, where<T>(mask, back), n);
                });
            }
        }
    });
}

}  // namespace
}  // namespace sharedgrad
