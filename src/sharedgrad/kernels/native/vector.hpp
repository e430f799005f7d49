// Vectors of the instruction set that this translation unit is compiled for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace sharedgrad {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileFilters = 6, kTileColumns = 4;  // 24 of 32 registers accumulate
constexpr int kTileDeltas = 4, kTileTaps = 6;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileFilters = 4, kTileColumns = 3;  // 12 of 16
constexpr int kTileDeltas = 4, kTileTaps = 3;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileFilters = 4, kTileColumns = 3;
constexpr int kTileDeltas = 4, kTileTaps = 3;
#endif

template <typename T>
constexpr int kWidth = kVectorBytes / sizeof(T);  // lanes of one vector

template <typename T>
struct VectorOf {
    typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
inline Vector<T> load(const T* from) {
    Vector<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <typename T>
inline Vector<T> splat(T value) {
    return value - Vector<T>{};  // minus zero changes nothing, so no instruction is spent on it
}

// A vector of function(lane).
template <typename T, typename Function>
inline Vector<T> vector_of_lanes(const Function& function) {
    T lanes[kWidth<T>];
    for (int l = 0; l < kWidth<T>; ++l) lanes[l] = function(l);
    return load(lanes);
}

// Lanes by their places: a's count from 0, b's go on behind them.
template <int... Places, typename V>
inline V lanes_of(V a, V b) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, Places...);
#else  // GCC before 12
    return __builtin_shuffle(a, b, decltype(a < b){Places...});
#endif
}

// A vector that many products use: without this GCC reads it from memory for each of them.
template <typename V>
inline V in_register(V v) {
#if defined(__x86_64__)
    asm("" : "+v"(v));
#endif
    return v;
}

// A product that is rounded before anything is added to it.
template <typename V>
inline V rounded(V v) {
#if defined(__x86_64__)
    return in_register(v);
#else
    asm("" : "+m"(v));
    return v;
#endif
}

template <typename T>
inline void store(T* to, Vector<T> v) {
    std::memcpy(to, &v, sizeof v);
}

// What comes back through a ReLU with this output: nothing where it is zero. NaN lets it pass, as in PyTorch.
template <typename T>
inline Vector<T> relu_gate(Vector<T> upstream, Vector<T> output) {
    return output <= T(0) ? Vector<T>{} : upstream;
}

template <typename T>
inline Vector<T> relu_of(Vector<T> v) {
    return v <= T(0) ? Vector<T>{} : v;  // NaN stays NaN
}

// What becomes of a sum on its way to `to`: perhaps added to what is there, then ReLU, or back through the ReLU whose
// output is at `gate`. `read` gives the vectors at both.
template <typename T, typename Read>
inline Vector<T> finished(Vector<T> v, bool add, bool relu, const T* to, const T* gate, const Read& read) {
    if (add) v += read(to);
    if (relu) v = relu_of<T>(v);
    return gate ? relu_gate<T>(v, read(gate)) : v;
}

template <typename T>
inline T total(Vector<T> v) {
    T lanes[kWidth<T>];
    store(lanes, v);
    for (int half = kWidth<T> / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

}  // namespace
}  // namespace sharedgrad
