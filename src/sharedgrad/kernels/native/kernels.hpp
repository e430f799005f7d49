// The compiled kernels' table: one for each instruction set and element type, chosen when the module loads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sharedgrad {

constexpr int kLargest = 1 << 30;  // of all sizes, so that a + b − 1 is an int
constexpr int kDirections = 8;     // that along_directions looks along
constexpr int kMostCells = 64;     // of a kernel along one axis; NumPy serves larger ones

extern std::atomic<bool> minimal_filtering;  // whether 3×3 convolutions in float32 may take it (winograd.hpp)

enum Activation { kIdentity, kReLU, kSigmoid, kTanh, kActivationCount };
constexpr const char* kActivationNames[] = {"identity", "relu", "sigmoid", "tanh"};
static_assert(sizeof kActivationNames / sizeof *kActivationNames == kActivationCount, "each activation has its name");

enum PaddingMode { kReflect, kReplicate, kCircular, kPaddingCount };  // what padding copies, where it is not zeros
constexpr const char* kPaddingNames[] = {"reflect", "replicate", "circular"};
static_assert(sizeof kPaddingNames / sizeof *kPaddingNames == kPaddingCount, "each way of padding has its name");

// How a window slides over maps; with one spatial axis the height is 1. Padding is what comes before.
struct Window {
    int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
};

// A list of operations on maps and plain arrays (see program.hpp for their meaning).
struct Program {
    const std::int64_t* maps;  // (map_count, kMapNumbers)
    const std::int64_t* code;  // (code_size)
    std::ptrdiff_t map_count, code_size;
    int array_count;
};

// array, offset, samples, lanes, channels, height, width, top, bottom, left, right, whether it lies by channel
constexpr int kMapNumbers = 12;

// One parameter's step: everything new goes into memory of its own.
template <typename T>
struct Update {
    T* value;  // (size), as all that follow
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

// Why a program cannot be read, or null; and its operations, one after the other.
struct Programs {
    const char* (*check)(const Program& program);
    void (*run)(const Program& program, void* const* arrays);
};

template <typename T>
struct Kernels {
    int lanes;
    Programs programs;

    // p (U, B, I), w (B, O, I), y (U, B, O); the last four numbers are U, B, O, I
    void (*blocks)(T* y, const T* p, const T* w, int, int, int, int);
    void (*blocks_input_gradient)(T* dp, const T* delta, const T* w, int, int, int, int);
    // total (K, B, O, I), delta (K, U, B, O), p (K, U, B, I); the last five numbers are K, U, B, O, I
    void (*outer_sum)(T* total, const T* delta, const T* p, int, int, int, int, int);

    // squares (M, S), seen (M, 8, S), x (M, C, S), directions (groups, C, 8); the last four numbers are M / groups,
    // groups, C, S
    void (*along_directions)(T* squares, T* seen, const T* x, const T* directions, int, int, int, int);
    // squares and products (N, S), totals (N, C), delta and x (N, C, S) or no x, coefficients (3, C); then N, C, S
    void (*channel_uses)(T* squares, T* products, T* totals, const T* delta, const T* x, const T* coefficients, int,
                         int, int);

    // scores (rows, classes)
    void (*softmax)(T* y, const T* x, int rows, int classes);
    void (*softmax_backward)(T* dx, const T* dy, const T* y, int rows, int classes);
    // the sum of the losses over scores (rows, classes) and labels (rows), which lie from 0 to classes − 1
    double (*cross_entropy)(T* upstream, const T* scores, const std::int64_t* labels, int rows, int classes,
                            double smoothing, double count);

    void (*sgd)(const Update<T>* updates, int count, const SGDSettings& settings);
    void (*adam)(const Update<T>* updates, int count, const AdamSettings& settings);
};

struct Table {
    const char* name;
    const char* (*operation_name)(int code);  // of a program's operation; null after the last
    Kernels<float> f32;
    Kernels<double> f64;
};

const Table& baseline();
#if defined(__x86_64__)
const Table& avx2();
const Table& avx512();
#endif

}  // namespace sharedgrad
