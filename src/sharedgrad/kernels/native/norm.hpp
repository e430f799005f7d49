// Batch normalization, channel by channel: x̂ = (x − mean) / √(variance + ε), y = weight · x̂ + bias.
//
// A task is one channel of all samples, or a vector of channels where these are the lanes: what its first pass reads is
// still in the cache when the second one comes.
#pragma once

#include <cmath>

#include "maps.hpp"

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

template <typename T>
inline Vector<T> where(Vector<T> mask, Vector<T> v) {
    return mask > T(0) ? v : Vector<T>{};  // not a product: NaN in padding would come through
}

// Mean and (biased) variance over samples and positions, in one pass over memory: each lane of a few rows has its mean
// and its squared differences from that, which join those of the rows before (Chan, Golub & LeVeque 1983).
template <typename T>
void channel_statistics(T* mean, T* variance, const Map<T>& x, const Group<T>& group) {
    constexpr int V = kWidth<T>;
    const T in_row = T(x.width);  // numbers of one row in each lane
    const int together = std::max(1, kTogether / x.width);
    Vector<T> means = {}, squares = {};
    double rows = 0;
    for (int b = 0; b < group.blocks(); ++b) {
        const Vector<T> mask = group.mask(b);
        for (int h = 0; h < x.height; h += together) {
            const int n = std::min(together, x.height - h);
            Vector<T> sum[kSeveral] = {}, part[kSeveral] = {};
            for (int r = 0; r < n; ++r) {
                const T* row = group.row(x, b, h + r);
                vectors_of<T, kSeveral>(x.used(),
                                        [&](auto i, auto lanes, int k) { sum[k] += load_part(row + i, lanes); });
            }
            const Vector<T> own = sum_of<T>(sum) * (T(1) / in_row) * (T(1) / T(n));
            for (int r = 0; r < n; ++r) {
                const T* row = group.row(x, b, h + r);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto lanes, int k) {
                    const Vector<T> d = load_part(row + i, lanes) - own;
                    part[k] += d * d;
                });
            }
            const Vector<T> step = own - means;
            means += where<T>(mask, step * splat(T(n / (rows + n))));
            squares += where<T>(mask, sum_of<T>(part) + step * step * in_row * splat(T(rows * n / (rows + n))));
            rows += n;
        }
    }
    const Vector<T> last = group.mask(group.blocks() - 1);
    double counts[V], count[V] = {}, sum[V] = {}, total_squares[V] = {};
    for (int l = 0; l < V; ++l) {
        const int c = group.of_lane(l);
        counts[l] = double(x.width) * x.height * (group.blocks() - (last[l] > 0 ? 0 : 1));
        count[c] += counts[l];
        sum[c] += counts[l] * means[l];
    }
    for (int c = 0; c < group.channels(); ++c) sum[c] /= count[c];
    for (int l = 0; l < V; ++l) {
        const int c = group.of_lane(l);
        total_squares[c] += squares[l] + counts[l] * (means[l] - sum[c]) * (means[l] - sum[c]);
    }
    for (int c = 0; c < group.channels(); ++c) {
        mean[group.first() + c] = T(sum[c]);
        variance[group.first() + c] = T(total_squares[c] / count[c]);
    }
}

// y of a task's channels, as forward and (for its ReLU) backward compute it.
template <typename T>
struct Scaling {
    Vector<T> mean, inverse, scale, shift;
    Scaling(const Group<T>& group, const T* mean_of, const T* variance, const T* weight, const T* bias, T epsilon)
        : mean(group.per_lane(mean_of + group.first())), inverse(group.per_lane(variance + group.first())) {
        for (int l = 0; l < kWidth<T>; ++l) inverse[l] = T(1) / std::sqrt(inverse[l] + epsilon);
        scale = group.per_lane(weight + group.first()) * inverse;
        shift = group.per_lane(bias + group.first()) - mean * scale;
    }
    Vector<T> operator()(Vector<T> x) const { return x * scale + shift; }
};

// y = x̂ · weight + bias, then perhaps + shortcut, then perhaps ReLU. With Own, mean and variance are x's own.
template <typename T, bool Own>
void normalize(const Map<T>& y, const Map<T>& x, const Map<T>* shortcut, T* mean, T* variance, const T* weight,
               const T* bias, bool relu, T epsilon) {
    parallel(Group<T>::count(x), 2 * x.operations(), [&](int task) {
        const Group<T> group{x, task};
        if (Own) channel_statistics(mean, variance, x, group);
        const Scaling<T> scaled(group, mean, variance, weight, bias, epsilon);
        for (int b = 0; b < group.blocks(); ++b)
            for (int h = 0; h < x.height; ++h) {
                const T* from = group.row(x, b, h);
                const T* more = shortcut ? group.row(*shortcut, b, h) : nullptr;
                T* to = group.row(y, b, h);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto n, int) {
                    Vector<T> v = scaled(load_part(from + i, n));
                    if (more) v += load_part(more + i, n);
                    store_part(to + i, relu ? relu_of<T>(v) : v, n);
                });
                // No statistics keep padding small: normalized again and again it would grow beyond all numbers, and
                // where weights' gradients add over lanes, 0 · ∞ is NaN.
                if (group.alive(b) < x.lanes)
                    vectors_of<T>(x.used(), [&, mask = group.mask(b)](auto i, auto n, int) {
                        store_part(to + i, where<T>(mask, load_part(to + i, n)), n);
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
    const double count = x.logical().operations() / x.logical().channels;
    parallel(Group<T>::count(x), 3 * x.operations(), [&](int task) {
        const Group<T> group{x, task};
        const Scaling<T> scaled(group, mean, variance, weight, bias, epsilon);
        const auto through = [&](Vector<T> up, Vector<T> in) { return relu ? relu_gate<T>(up, scaled(in)) : up; };
        double sums[kWidth<T>] = {}, products[kWidth<T>] = {};
        for (int b = 0; b < group.blocks(); ++b) {
            Vector<T> part[kSeveral] = {}, product[kSeveral] = {};
            for (int h = 0; h < x.height; ++h) {
                const T *up = group.row(dy, b, h), *from = group.row(x, b, h);
                vectors_of<T, kSeveral>(x.used(), [&](auto i, auto n, int k) {
                    const Vector<T> in = load_part(from + i, n), d = through(load_part(up + i, n), in);
                    part[k] += d;
                    product[k] += d * (in - scaled.mean);
                });
            }
            const Vector<T> mask = group.mask(b);
            group.add(sums, where<T>(mask, sum_of<T>(part)));
            group.add(products, where<T>(mask, sum_of<T>(product)));
        }
        T less[kWidth<T>] = {}, slope[kWidth<T>] = {};
        for (int c = 0; c < group.channels(); ++c) {
            const T inverse = scaled.inverse[c];
            products[c] *= inverse;
            dweight[group.first() + c] = T(products[c]);
            dbias[group.first() + c] = T(sums[c]);
            if (training) less[c] = T(sums[c] / count), slope[c] = T(products[c] / count) * inverse;
        }
        if (!dx) return;
        const Vector<T> minus = group.per_lane(less), times = group.per_lane(slope);
        for (int b = 0; b < group.blocks(); ++b)
            for (int h = 0; h < x.height; ++h) {
                const T *up = group.row(dy, b, h), *from = group.row(x, b, h);
                T* to = group.row(*dx, b, h);
                vectors_of<T, kSeveral>(x.used(), [&, mask = group.mask(b)](auto i, auto n, int) {
                    const Vector<T> in = load_part(from + i, n), d = through(load_part(up + i, n), in);
                    const Vector<T> back = (d - minus - (in - scaled.mean) * times) * scaled.scale;
                    store_part(to + i, where<T>(mask, back), n);
                });
            }
    });
}

}  // namespace
}  // namespace sharedgrad
