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

// Codes, and in the same order the names by which Python knows them.
enum Activation { kIdentity, kReLU, kSigmoid, kTanh };
constexpr const char* kActivations = "identity relu sigmoid tanh";
enum PaddingMode { kReflect, kReplicate, kCircular };  // what padding copies, where it is not zeros
constexpr const char* kPaddings = "reflect replicate circular";

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

template <typename T>
struct Kernels {
    int lanes;
    // Why a program cannot be read, or null.
    const char* (*check)(const Program& program);
    // Carries out the code from `begin` on, or only what comes before its first update; where it has stopped.
    std::ptrdiff_t (*run)(const Program& program, void* const* arrays, std::ptrdiff_t begin, bool before_updates);
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
