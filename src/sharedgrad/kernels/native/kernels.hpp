// The compiled kernels' table: one for each instruction set and element type, chosen when the module loads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sharedgrad {

// A 2-D convolution; 1-D has height 1. Sizes are those of the unpadded input; padding is what comes before.
struct Geometry {
    int samples, channels, height, width;
    int filters, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
    int out_h, out_w;
};

// One parameter's step: everything new goes into memory of its own.
template <typename T>
struct Update {
    T* value;
    const T *old_value, *gradient;
    T* state[2];  // SGD: velocity or null; Adam: mean, square
    const T* old_state[2];
    std::ptrdiff_t size;
    double steps;  // this parameter's own, with this one
};

struct SGDSettings {
    double lr, momentum, weight_decay;
    bool nesterov;
};

struct AdamSettings {
    double lr, beta1, beta2, eps, weight_decay;
    bool decoupled;
};

template <typename T>
struct Kernels {
    void (*conv)(T* y, const T* x, const T* w, const T* bias, const Geometry& g);
    void (*conv_input_gradient)(T* dx, const T* dy, const T* w, const Geometry& g);
    // dw (F, C/groups, KH, KW), or with by_sample (N, F, C/groups, KH, KW)
    void (*conv_kernel_gradient)(T* dw, const T* dy, const T* x, const Geometry& g, bool by_sample);

    void (*sigmoid)(T* y, const T* x, std::ptrdiff_t size);
    void (*sigmoid_backward)(T* dx, const T* dy, const T* y, std::ptrdiff_t size);
    void (*tanh_backward)(T* dx, const T* dy, const T* y, std::ptrdiff_t size);
    void (*relu)(T* y, const T* x, std::ptrdiff_t size);
    void (*relu_backward)(T* dx, const T* dy, const T* y, std::ptrdiff_t size);

    void (*max_pool)(T* y, const T* x, const Geometry& g);
    void (*max_pool_backward)(T* dx, const T* dy, const T* x, const T* y, const Geometry& g);

    // maps (samples, channels, size)
    void (*batch_statistics)(T* mean, T* variance, const T* x, int samples, int channels, std::ptrdiff_t size);
    void (*normalize)(T* y, const T* x, const T* mean, const T* inverse_std, int, int, std::ptrdiff_t);
    void (*scale_shift)(T* y, const T* x, const T* scale, const T* shift, int, int, std::ptrdiff_t);
    void (*normalize_backward)(T* dx, const T* dy, const T* normal, const T* factor, int, int, std::ptrdiff_t);

    // x (N, I), w (O, I), y (N, O); the last three numbers are N, I, O; a bias may be null
    void (*linear)(T* y, const T* x, const T* w, const T* bias, int, int, int);
    void (*linear_input_gradient)(T* dx, const T* dy, const T* w, int, int, int);
    void (*linear_weight_gradient)(T* dw, T* dbias, const T* dy, const T* x, int, int, int);
    // p (U, B, I), w (B, O, I), y (U, B, O); the last four numbers are U, B, O, I
    void (*blocks)(T* y, const T* p, const T* w, int, int, int, int);
    void (*blocks_input_gradient)(T* dp, const T* delta, const T* w, int, int, int, int);
    // total (K, B, O, I), delta (K, U, B, O), p (K, U, B, I); the last five numbers are K, U, B, O, I
    void (*outer_sum)(T* total, const T* delta, const T* p, int, int, int, int, int);

    // scores (rows, classes)
    void (*softmax)(T* y, const T* x, int rows, int classes);
    void (*softmax_backward)(T* dx, const T* dy, const T* y, int rows, int classes);
    void (*tanh)(T* y, const T* x, std::ptrdiff_t size);
    // the sum of the losses; labels lie from 0 to classes − 1
    double (*cross_entropy)(T* upstream, const T* scores, const std::int64_t* labels, int rows, int classes,
                            double smoothing, double count);

    void (*sgd)(const Update<T>* updates, int count, const SGDSettings& settings);
    void (*adam)(const Update<T>* updates, int count, const AdamSettings& settings);
};

struct Table {
    const char* name;
    Kernels<float> f32;
    Kernels<double> f64;
};

const Table& baseline();
#if defined(__x86_64__)
const Table& avx2();
const Table& avx512();
#endif

}  // namespace sharedgrad
