// Batch normalization, channel by channel: x̂ = (x − mean) / √(variance + ε), y = weight · x̂ + bias.
#pragma once

#include <cmath>

#include "layout.hpp"

namespace sharedgrad {
namespace {

// Rows of one channel, vector by vector: function(block, row, offset, lanes that exist, whether all do).
// Padding lanes must not enter a sum: `alive` has ones where a sample is.
template <typename T>
struct Channel {
    const Map<T>& map;
    int c;

    template <typename Function>
    void vectors(const Function& function) const {
        constexpr int V = kWidth<T>;
        for (int h = 0; h < map.height; ++h) {
            std::ptrdiff_t i = 0;
            for (; i + V <= map.used(); i += V) function(h, i, V);
            if (i < map.used()) function(h, i, int(map.used() - i));
        }
    }
};

template <typename T>
inline Vector<T> get(const T* from, int count) {
    return count == kWidth<T> ? load(from) : load_part(from, count);
}

template <typename T>
inline void put(T* to, Vector<T> v, int count) {
    if (count == kWidth<T>)
        store(to, v);
    else
        store_part(to, v, count);
}

// Ones in the lanes that hold samples; lanes beyond a row's end are zero anyway.
template <typename T>
Vector<T> alive(const Map<T>& map, int block) {
    T lanes[kWidth<T>];
    for (int l = 0; l < kWidth<T>; ++l) lanes[l] = T(l % map.lanes < map.alive(block));
    return load(lanes);
}

template <typename T>
inline Vector<T> ones_below(int count) {
    T lanes[kWidth<T>];
    for (int l = 0; l < kWidth<T>; ++l) lanes[l] = T(l < count);
    return load(lanes);
}

// Mean and (biased) variance of each channel over samples and positions.
template <typename T>
void batch_statistics(T* mean, T* variance, const Map<T>& x) {
    const double count = x.operations() / x.channels;
    parallel(x.channels, 2 * x.operations(), [&](int c) {
        const Channel<T> channel{x, c};
        double sum = 0, squares = 0;
        for (int b = 0; b < x.blocks(); ++b) {
            Vector<T> part = {};
            channel.vectors([&](int h, std::ptrdiff_t i, int n) { part += get(x.cell(b, c, h) + i, n); });
            sum += total<T>(part * alive(x, b));
        }
        const T m = mean[c] = T(sum / count);
        for (int b = 0; b < x.blocks(); ++b) {
            Vector<T> part = {};
            channel.vectors([&](int h, std::ptrdiff_t i, int n) {
                Vector<T> d = get(x.cell(b, c, h) + i, n) - splat(m);
                if (n < kWidth<T>) d *= ones_below<T>(n);
                part += d * d;
            });
            squares += total<T>(part * alive(x, b));
        }
        variance[c] = T(squares / count);
    });
}

// y = (x − mean) · inverse_std · weight + bias, then perhaps ReLU
template <typename T>
void normalize(const Map<T>& y, const Map<T>& x, const T* mean, const T* variance, const T* weight, const T* bias,
               T epsilon, bool relu) {
    parallel(x.blocks() * x.channels, x.operations(), [&](int task) {
        const int b = task / x.channels, c = task % x.channels;
        const T scale = weight[c] / std::sqrt(variance[c] + epsilon), shift = bias[c] - mean[c] * scale;
        Channel<T>{x, c}.vectors([&](int h, std::ptrdiff_t i, int n) {
            const Vector<T> v = get(x.cell(b, c, h) + i, n) * splat(scale) + splat(shift);
            put(y.cell(b, c, h) + i, relu ? (v <= T(0) ? Vector<T>{} : v) : v, n);
        });
    });
}

// With the batch's own statistics: dweight = Σ dy·x̂, dbias = Σ dy and
//   dx = weight · inverse_std · (dy − mean(dy) − x̂ · mean(dy·x̂));
// with constant ones: dx = weight · inverse_std · dy. Where y is given, dy goes through its ReLU first.
template <typename T>
void normalize_backward(const Map<T>* dx, T* dweight, T* dbias, const Map<T>& dy, const Map<T>& x, const Map<T>* y,
                        const T* mean, const T* variance, const T* weight, T epsilon, bool training) {
    const double count = x.operations() / x.channels;
    parallel(x.channels, 3 * x.operations(), [&](int c) {
        const Channel<T> channel{x, c};
        const T inverse = T(1) / std::sqrt(variance[c] + epsilon);
        const auto delta = [&](int b, int h, std::ptrdiff_t i, int n) {
            const Vector<T> up = get(dy.cell(b, c, h) + i, n);
            return y ? (get(y->cell(b, c, h) + i, n) > T(0) ? up : Vector<T>{}) : up;
        };
        const auto normal = [&](int b, int h, std::ptrdiff_t i, int n) {
            return (get(x.cell(b, c, h) + i, n) - splat(mean[c])) * splat(inverse);
        };
        double sum = 0, products = 0;
        for (int b = 0; b < x.blocks(); ++b) {
            Vector<T> part = {}, product = {};
            channel.vectors([&](int h, std::ptrdiff_t i, int n) {
                const Vector<T> d = delta(b, h, i, n);
                part += d;
                product += d * normal(b, h, i, n);
            });
            const Vector<T> mask = alive(x, b);
            sum += total<T>(part * mask);
            products += total<T>(product * mask);
        }
        dweight[c] = T(products);
        dbias[c] = T(sum);
        if (!dx) return;
        const T factor = weight[c] * inverse;
        const T less = training ? T(sum / count) : T(0), slope = training ? T(products / count) : T(0);
        for (int b = 0; b < x.blocks(); ++b) {
            const Vector<T> mask = alive(x, b);  // what flows on from padding must stay zero
            channel.vectors([&](int h, std::ptrdiff_t i, int n) {
                const Vector<T> d = delta(b, h, i, n) - splat(less) - normal(b, h, i, n) * splat(slope);
                put(dx->cell(b, c, h) + i, d * splat(factor) * mask, n);
            });
        }
    });
}

}  // namespace
}  // namespace sharedgrad
