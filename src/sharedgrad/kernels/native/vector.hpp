// Vectors of the instruction set that this translation unit is compiled for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
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

// Samples side by side in memory: one 64-byte line, whatever the instruction set, so that layouts agree.
template <typename T>
constexpr int kLanes = 64 / sizeof(T);

template <typename T>
constexpr int kWidth = kVectorBytes / sizeof(T);  // elements of one vector

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

template <typename T>
inline void store(T* to, Vector<T> v) {
    std::memcpy(to, &v, sizeof v);
}

}  // namespace
}  // namespace sharedgrad
