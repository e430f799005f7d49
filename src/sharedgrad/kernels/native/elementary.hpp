// Elementary functions in a form that compilers turn into vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

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
    const std::uint32_t bits = std::uint32_t(std::int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}
inline double exp_of(double x) { return std::exp(x); }

// NaN stays NaN.
template <typename T>
inline T sigmoid_of(T x) {
    return x != x ? x : T(1) / (T(1) + exp_of(-x));
}

// tanh for float, to about one unit in the last place (Cephes, Moshier 1989): a polynomial near 0, where
// 1 − 2/(e^2x + 1) would cancel. NaN stays NaN.
inline float tanh_of(float x) {
    const float z = x * x, size = std::fabs(x);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = p * z * x + x;
    const float far = std::copysign(1.0f - 2.0f / (exp_of(2.0f * size) + 1.0f), x);
    return size > 0.625f ? far : near;
}
inline double tanh_of(double x) { return std::tanh(x); }

// Of numbers, or of vectors lane by lane.
template <typename V>
inline V larger(V a, V b) {
    return (b > a) | (b != b) ? b : a;  // NaN wins
}

// function(kind), an activation as a compile-time number
template <int Kind = kTanh, typename Function>
void for_kind(int kind, const Function& function) {
    if constexpr (Kind > kIdentity)
        if (kind != Kind) return for_kind<Kind - 1>(kind, function);
    function(std::integral_constant<int, Kind>());
}

template <int Kind, typename T>
inline Vector<T> activated(Vector<T> x) {
    if constexpr (Kind == kIdentity) return x;
    if constexpr (Kind == kReLU) return relu_of<T>(x);
    T lanes[kWidth<T>];
    store(lanes, x);
    for (T& v : lanes) v = Kind == kSigmoid ? sigmoid_of(v) : tanh_of(v);
    return load(lanes);
}

// dx from dy and the activation's output.
template <int Kind, typename T>
inline Vector<T> through(Vector<T> dy, Vector<T> y) {
    if constexpr (Kind == kReLU) return relu_gate<T>(dy, y);
    if constexpr (Kind == kSigmoid) return dy * y * (T(1) - y);
    if constexpr (Kind == kTanh) return dy * (T(1) - y * y);
    return dy;
}

// e^x for x ≤ 0, lane by lane: 0 at −∞ (and, for float, below the smallest normal number)
template <typename T>
inline Vector<T> exp_of_negative(Vector<T> x) {
    T lanes[kWidth<T>];
    store(lanes, x);
    for (T& v : lanes) v = sizeof(T) == 4 && v < T(-87) ? T(0) : exp_of(v);
    return load(lanes);
}

}  // namespace
}  // namespace sharedgrad
