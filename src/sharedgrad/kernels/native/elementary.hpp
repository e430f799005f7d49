// Elementary functions in a form that compilers turn into vectors.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

template <typename T>
using Integers = decltype(Vector<T>{} < Vector<T>{});  // signed ones of the same size, lane by lane

// function(number) of each lane
template <typename T, typename Function>
inline Vector<T> each_lane(Vector<T> v, const Function& function) {
    for (int l = 0; l < kWidth<T>; ++l) v[l] = function(v[l]);
    return v;
}

// e^x for float, to about one unit in the last place: 2^n · p(r) with x = n·ln 2 + r (Cody & Waite 1980). NaN stays
// NaN, here and in all that follows.
inline Vector<float> exp_of(Vector<float> x) {
    const Vector<float> least = splat(-87.0f), most = splat(88.0f);
    x = x < least ? least : x;
    x = x > most ? most : x;
    const Vector<float> n = each_lane<float>(x * 1.44269504f, [](float v) { return std::nearbyint(v); });
    const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector<float> p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Integers<float> bits = (__builtin_convertvector(n, Integers<float>) + 127) << 23;
    Vector<float> scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}
inline Vector<double> exp_of(Vector<double> x) {
    return each_lane<double>(x, [](double v) { return std::exp(v); });
}

template <typename T>
inline Vector<T> sigmoid_of(Vector<T> x) {
    return T(1) / (T(1) + exp_of(-x));
}

// tanh for float, to about one unit in the last place (Cephes, Moshier 1989): a polynomial near 0, where
// 1 − 2/(e^2x + 1) would cancel.
inline Vector<float> tanh_of(Vector<float> x) {
    const Vector<float> z = x * x, size = x < 0.0f ? -x : x;
    Vector<float> p = splat(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const Vector<float> near = p * z * x + x, far = 1.0f - 2.0f / (exp_of(2.0f * size) + 1.0f);
    return size > 0.625f ? (x < 0.0f ? -far : far) : near;
}
inline Vector<double> tanh_of(Vector<double> x) {
    return each_lane<double>(x, [](double v) { return std::tanh(v); });
}

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
    if constexpr (Kind == kSigmoid) return sigmoid_of<T>(x);
    return tanh_of(x);
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
    const Vector<T> y = exp_of(x);
    if constexpr (sizeof(T) == 4) return x < T(-87) ? Vector<T>{} : y;
    return y;
}

}  // namespace
}  // namespace sharedgrad
