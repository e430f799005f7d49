// Elementary functions in a form that compilers turn into vectors.
#pragma once

#include <cmath>

#include "maps.hpp"
#include "vector.hpp"

namespace sharedgrad {
namespace {

// tanh for float, to about one unit in the last place (Cephes, Moshier 1989): a polynomial near 0, where
// 1 − 2/(e^2x + 1) would cancel. NaN stays NaN.
inline float hyperbolic_tangent(float x) {
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
inline double hyperbolic_tangent(double x) { return std::tanh(x); }

// e^x for x ≤ 0, lane by lane: 0 at −∞ (and, for float, below the smallest normal number)
template <typename T>
inline Vector<T> exp_of_negative(Vector<T> x) {
    T lanes[kWidth<T>];
    store(lanes, x);
    for (int l = 0; l < kWidth<T>; ++l) lanes[l] = sizeof(T) == 4 && lanes[l] < T(-87) ? T(0) : exp_of(lanes[l]);
    return load(lanes);
}

}  // namespace
}  // namespace sharedgrad
