// Products of matrices as a dense layer needs them; all arrays row-major: x (N, I), w (O, I), y (N, O).
//
//   forward          y[n,o]  = b[o] + Σ_i x[n,i] · w[o,i]   both factors run along i: lanes are parts of one sum,
//                                                            or, for many rows, w is turned first
//   input gradient   dx[n,i] = Σ_o dy[n,o] · w[o,i]         rows of w run along i: lanes are different results
//   weight gradient  dw[o,i] = Σ_n dy[n,o] · x[n,i]         rows of x run along i: likewise
//
// Each result is summed in an order that the shapes decide: its place in the batch changes no bit.
#pragma once

#include "product.hpp"

namespace sharedgrad {
namespace {

// ---- the layer's three passes

// With fewer rows of x, turning w costs more than summing over lanes.
template <typename T>
constexpr int kFewRows = kVectorBytes == 64 && sizeof(T) == 4 ? 16 : 32;

template <typename T>
void linear(Matrix<T> y, Matrix<const T> x, Matrix<const T> w, const T* bias, int n, int outputs, int inputs) {
    if (n < kFewRows<T>)
        dot_products<T>(y, {bias}, x, w, n, outputs, inputs);
    else
        product<T>(y, {bias}, x, w.turned(), n, outputs, inputs);
}

// Plain vectors (N, K) as a matrix.
template <typename T>
Matrix<const T> matrix(const Map<T>& m) {
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
    product<T>({dx.data, dx.channels}, {}, matrix(dy), {w, dx.channels}, dx.samples, dx.channels, dy.channels);
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
    if (!size) return;
    rows_in_tasks(dy.samples * dy.channels, double(size) / 4, [&](int row) {
        T* const to = dw + std::ptrdiff_t(row) * x.channels;
        const T* const from = matrix(x)[row / dy.channels];
        vectors_of<T>(x.channels, [&, delta = splat(dy.data[row])](auto i, auto count, int) {
            const Vector<T> v = delta * load_part(from + i, count);
            streamed ? stream(to + i, v) : store_part(to + i, v, count);
        });
        if (streamed) end_of_stream();
    });
}

// dw (O, I) = dyᵀ (N, O) · x (N, I) or by sample; dbias (O), likewise, may be null
template <typename T>
void linear_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, bool by_sample) {
    if (by_sample || dy.samples == 1) {
        outer_products(dw, dy, x);
        if (dbias) std::copy_n(dy.data, dy.size(), dbias);
        return;
    }
    product<T>({dw, x.channels}, {}, matrix(dy).turned(), matrix(x), dy.channels, x.channels, dy.samples);
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
    if (dbias) std::copy_n(dy.data, dy.channels, dbias);
}

// ---- many layers side by side, each with a matrix of its own: p (U, B, I), w (B, O, I), y (U, B, O)

// Block b of the vectors (U, B, size): (U, size).
template <typename T>
Matrix<T> block_of(T* data, int b, int count, int size) {
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
        product<T>(block_of(dp.data, b, count, inputs), {}, block_of<const T>(delta.data, b, count, outputs),
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
        product<T>({total.data + std::ptrdiff_t(task) * outputs * inputs, inputs}, {},
                   block_of<const T>(delta.data + first * outputs, task % count, count, outputs).turned(),
                   block_of<const T>(p.data + first * inputs, task % count, count, inputs), outputs, inputs, uses);
    });
}

}  // namespace
}  // namespace sharedgrad
