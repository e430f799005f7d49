// Everything that goes over maps once: activations, pooling, batch normalization. Public memory order (N, C, H, W).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels.hpp"
#include "threads.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

constexpr std::ptrdiff_t kPiece = 1 << 16;  // elements worth handing to a thread

// function(begin, end) over pieces of 0 … size
template <typename Function>
void pieces(std::ptrdiff_t size, const Function& function) {
    parallel(int((size + kPiece - 1) / kPiece), double(size),
             [&](int i) { function(i * kPiece, std::min(size, (i + 1) * kPiece)); });
}

// e^x for float, to about one unit in the last place: 2^n · p(r) with x = n·ln 2 + r (Cody & Waite 1980)
inline float exp_of(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const float n = std::nearbyint(x * 1.44269504f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t bits = (std::int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}
inline double exp_of(double x) { return std::exp(x); }

template <typename T>
void sigmoid(T* y, const T* x, std::ptrdiff_t size) {
    pieces(size, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (auto i = begin; i < end; ++i) y[i] = x[i] != x[i] ? x[i] : T(1) / (T(1) + exp_of(-x[i]));
    });
}

template <typename T>
void sigmoid_backward(T* dx, const T* dy, const T* y, std::ptrdiff_t size) {
    pieces(size, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (auto i = begin; i < end; ++i) dx[i] = dy[i] * y[i] * (T(1) - y[i]);
    });
}

template <typename T>
void tanh_backward(T* dx, const T* dy, const T* y, std::ptrdiff_t size) {
    pieces(size, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (auto i = begin; i < end; ++i) dx[i] = dy[i] * (T(1) - y[i] * y[i]);
    });
}

template <typename T>
void relu(T* y, const T* x, std::ptrdiff_t size) {
    pieces(size, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (auto i = begin; i < end; ++i) y[i] = x[i] <= T(0) ? T(0) : x[i];  // NaN stays NaN
    });
}

template <typename T>
void relu_backward(T* dx, const T* dy, const T* y, std::ptrdiff_t size) {
    pieces(size, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        for (auto i = begin; i < end; ++i) {
            const T up = dy[i];
            dx[i] = y[i] > T(0) ? up : T(0);
        }
    });
}

// ---- max pooling

// Of numbers, or of vectors lane by lane.
template <typename T>
inline T larger(T a, T b) {
    return (b > a) | (b != b) ? b : a;  // NaN wins
}

// Windows of 2×2 side by side, the common case: without bounds or overlaps.
inline bool halves(const Geometry& g) {
    return g.kernel_h == 2 && g.kernel_w == 2 && g.stride_h == 2 && g.stride_w == 2 && g.pad_h == 0 && g.pad_w == 0 &&
           g.height == 2 * g.out_h && g.width == 2 * g.out_w;
}

// Cells a b of one row and c d of the next, for kQuads windows side by side. The loops have constant bounds, so that
// they become vectors without a branch; what lies beyond the row is filled up and thrown away.
constexpr int kQuads = 16;

template <typename T>
struct Quads {
    T a[kQuads], b[kQuads], c[kQuads], d[kQuads];

    Quads(const T* upper, const T* lower, int count) {
        T rows[2][2 * kQuads] = {};
        std::memcpy(rows[0], upper, 2 * count * sizeof(T));
        std::memcpy(rows[1], lower, 2 * count * sizeof(T));
        for (int i = 0; i < kQuads; ++i) {
            a[i] = rows[0][2 * i];
            b[i] = rows[0][2 * i + 1];
            c[i] = rows[1][2 * i];
            d[i] = rows[1][2 * i + 1];
        }
    }
};

template <typename T>
void max_of_quads(T* y, const T* upper, const T* lower, int count) {
    const Quads<T> x(upper, lower, count);
    T best[kQuads];
    for (int i = 0; i < kQuads; i += kWidth<T>)
        store(best + i, larger(larger(load(x.a + i), load(x.b + i)), larger(load(x.c + i), load(x.d + i))));
    std::memcpy(y, best, count * sizeof(T));
}

template <typename T>
void back_to_quads(T* upper_dx, T* lower_dx, const T* upper, const T* lower, const T* y, const T* dy, int count) {
    const Quads<T> x(upper, lower, count);
    T best[kQuads] = {}, up[kQuads] = {}, rows[2][2 * kQuads];
    std::memcpy(best, y, count * sizeof(T));
    std::memcpy(up, dy, count * sizeof(T));
    for (int i = 0; i < kQuads; ++i) {  // the first of equals: what an earlier one has taken is gone
        const T u = up[i];
        const bool a = x.a[i] == best[i], b = (x.b[i] == best[i]) & !a;
        const bool c = (x.c[i] == best[i]) & !a & !b, d = (x.d[i] == best[i]) & !a & !b & !c;
        rows[0][2 * i] = a ? u : T(0);
        rows[0][2 * i + 1] = b ? u : T(0);
        rows[1][2 * i] = c ? u : T(0);
        rows[1][2 * i + 1] = d ? u : T(0);
    }
    std::memcpy(upper_dx, rows[0], 2 * count * sizeof(T));
    std::memcpy(lower_dx, rows[1], 2 * count * sizeof(T));
}

template <typename T>
void max_pool(T* y, const T* x, const Geometry& g) {
    parallel(g.samples * g.channels, double(g.samples) * g.channels * g.height * g.width, [=](int map) {
        const T* in = x + std::ptrdiff_t(map) * g.height * g.width;
        T* out = y + std::ptrdiff_t(map) * g.out_h * g.out_w;
        if (halves(g)) {
            for (int h = 0; h < g.out_h; ++h)
                for (int w = 0; w < g.out_w; w += kQuads) {
                    const T* upper = in + 2 * h * g.width + 2 * w;
                    max_of_quads(out + h * g.out_w + w, upper, upper + g.width, std::min(kQuads, g.out_w - w));
                }
            return;
        }
        for (int h = 0; h < g.out_h; ++h)
            for (int w = 0; w < g.out_w; ++w) {
                const int top = h * g.stride_h - g.pad_h, left = w * g.stride_w - g.pad_w;
                T best = -std::numeric_limits<T>::infinity();
                for (int i = std::max(0, top); i < std::min(g.height, top + g.kernel_h); ++i)
                    for (int j = std::max(0, left); j < std::min(g.width, left + g.kernel_w); ++j)
                        best = larger(best, in[i * g.width + j]);
                out[h * g.out_w + w] = best;
            }
    });
}

// The first input in row-major order that equals the output wins.
template <typename T>
void max_pool_backward(T* dx, const T* dy, const T* x, const T* y, const Geometry& g) {
    parallel(g.samples * g.channels, double(g.samples) * g.channels * g.height * g.width, [=](int map) {
        const std::ptrdiff_t big = std::ptrdiff_t(map) * g.height * g.width;
        const std::ptrdiff_t small = std::ptrdiff_t(map) * g.out_h * g.out_w;
        if (halves(g)) {
            for (int h = 0; h < g.out_h; ++h)
                for (int w = 0; w < g.out_w; w += kQuads) {
                    const std::ptrdiff_t at = big + 2 * h * g.width + 2 * w, to = small + h * g.out_w + w;
                    back_to_quads(dx + at, dx + at + g.width, x + at, x + at + g.width, y + to, dy + to,
                                  std::min(kQuads, g.out_w - w));
                }
            return;
        }
        std::fill_n(dx + big, g.height * g.width, T(0));
        for (int h = 0; h < g.out_h; ++h)
            for (int w = 0; w < g.out_w; ++w) {
                const int top = h * g.stride_h - g.pad_h, left = w * g.stride_w - g.pad_w;
                const T best = y[small + h * g.out_w + w];
                for (int i = std::max(0, top); i < std::min(g.height, top + g.kernel_h); ++i)
                    for (int j = std::max(0, left); j < std::min(g.width, left + g.kernel_w); ++j)
                        if (x[big + i * g.width + j] == best) {
                            dx[big + i * g.width + j] += dy[small + h * g.out_w + w];
                            goto next;
                        }
            next:;
            }
    });
}

// ---- batch normalization: one task a channel, rows added in the order of the samples

template <typename T, typename Term>
double row_sum(std::ptrdiff_t size, const Term& term) {
    T lanes[kLanes<T>] = {};
    std::ptrdiff_t i = 0;
    for (; i + kLanes<T> <= size; i += kLanes<T>)
        for (int l = 0; l < kLanes<T>; ++l) lanes[l] += term(i + l);
    double sum = 0;
    for (int l = 0; l < kLanes<T>; ++l) sum += lanes[l];
    for (; i < size; ++i) sum += term(i);
    return sum;
}

template <typename T>
void batch_statistics(T* mean, T* variance, const T* x, int samples, int channels, std::ptrdiff_t size) {
    parallel(channels, double(samples) * channels * size, [=](int c) {
        double sum = 0, squares = 0;
        for (int n = 0; n < samples; ++n) {
            const T* row = x + (std::ptrdiff_t(n) * channels + c) * size;
            sum += row_sum<T>(size, [=](std::ptrdiff_t i) { return row[i]; });
        }
        const T m = mean[c] = T(sum / (double(samples) * size));
        for (int n = 0; n < samples; ++n) {
            const T* row = x + (std::ptrdiff_t(n) * channels + c) * size;
            squares += row_sum<T>(size, [=](std::ptrdiff_t i) { return (row[i] - m) * (row[i] - m); });
        }
        variance[c] = T(squares / (double(samples) * size));
    });
}

template <typename T>
void normalize(T* y, const T* x, const T* mean, const T* inverse_std, int samples, int channels, std::ptrdiff_t size) {
    parallel(samples * channels, double(samples) * channels * size, [=](int map) {
        const T m = mean[map % channels], s = inverse_std[map % channels];
        for (auto i = map * size; i < (map + 1) * size; ++i) y[i] = (x[i] - m) * s;
    });
}

template <typename T>
void scale_shift(T* y, const T* x, const T* scale, const T* shift, int samples, int channels, std::ptrdiff_t size) {
    parallel(samples * channels, double(samples) * channels * size, [=](int map) {
        const T a = scale[map % channels], b = shift[map % channels];
        for (auto i = map * size; i < (map + 1) * size; ++i) y[i] = x[i] * a + b;
    });
}

template <typename T>
void normalize_backward(T* dx, const T* dy, const T* normal, const T* factor, int samples, int channels,
                        std::ptrdiff_t size) {
    parallel(channels, double(samples) * channels * size, [=](int c) {
        double sum = 0, products = 0;
        for (int n = 0; n < samples; ++n) {
            const std::ptrdiff_t map = (std::ptrdiff_t(n) * channels + c) * size;
            sum += row_sum<T>(size, [=](std::ptrdiff_t i) { return dy[map + i]; });
            products += row_sum<T>(size, [=](std::ptrdiff_t i) { return dy[map + i] * normal[map + i]; });
        }
        const T mean = T(sum / (double(samples) * size)), mean_product = T(products / (double(samples) * size));
        for (int n = 0; n < samples; ++n) {
            const std::ptrdiff_t map = (std::ptrdiff_t(n) * channels + c) * size;
            for (auto i = map; i < map + size; ++i) dx[i] = (dy[i] - mean - normal[i] * mean_product) * factor[c];
        }
    });
}

}  // namespace
}  // namespace sharedgrad
