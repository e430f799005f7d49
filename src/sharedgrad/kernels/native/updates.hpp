// The steps of optimizers: one pass over a parameter's memory. Settings are in float64, so that a program serves every
// learning rate; what is new may lie where the old one does.
#pragma once

#include <cmath>

#include "layout.hpp"

namespace sharedgrad {
namespace {

constexpr std::ptrdiff_t kUpdatePiece = 1 << 12;  // numbers worth handing to a thread

// New numbers may take the place of old ones: each is read before it is written, so lanes do not depend on each other.
#define SHAREDGRAD_EACH _Pragma("GCC ivdep")

// function(begin, end) over pieces of so many numbers, each of which takes so many operations
template <typename Function>
void pieces_of(std::ptrdiff_t size, double operations, const Function& function) {
    parallel(int((size + kUpdatePiece - 1) / kUpdatePiece), operations * double(size), [&](int piece) {
        const std::ptrdiff_t begin = piece * kUpdatePiece;
        function(begin, std::min(size, begin + kUpdatePiece));
    });
}

//   g ← gradient + decay · w     v ← momentum · v + g     w ← w − lr · v     (Nesterov: w − lr · (g + momentum · v))
// settings: lr, momentum, decay; v is left out where it is null.
template <typename T>
void sgd(const Map<T>& next, const T* old, const T* gradient, const double* settings, T* velocity,
         const T* old_velocity, bool nesterov) {
    T* const w = next.data;
    const T lr = T(settings[0]), momentum = T(settings[1]), decay = T(settings[2]);
    pieces_of(next.size(), 4, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        if (!velocity) {
            SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) w[i] = old[i] - lr * (gradient[i] + decay * old[i]);
            return;
        }
        SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) {
            const T g = gradient[i] + decay * old[i], v = momentum * old_velocity[i] + g;
            velocity[i] = v;
            w[i] = old[i] - lr * (nesterov ? g + momentum * v : v);
        }
    });
}

//   m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        w ← w − lr · m̂ / (√v̂ + ε)
// m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ), with t the parameter's own number of steps. settings: lr, β₁, β₂, ε, decay.
template <typename T>
void adam(const Map<T>& next, const T* old, const T* gradient, const double* settings, T* mean, const T* old_mean,
          T* square, const T* old_square, double steps, bool decoupled) {
    T* const w = next.data;
    const T beta1 = T(settings[1]), beta2 = T(settings[2]), eps = T(settings[3]);
    const T rest1 = T(1 - settings[1]), rest2 = T(1 - settings[2]);
    const T added = decoupled ? T(0) : T(settings[4]), shrink = decoupled ? T(settings[0] * settings[4]) : T(0);
    const T rate = T(settings[0] / (1 - std::pow(settings[1], steps)));
    const T root = T(std::sqrt(1 - std::pow(settings[2], steps)));
    pieces_of(next.size(), 8, [=](std::ptrdiff_t begin, std::ptrdiff_t end) {
        SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) {
            const T g = gradient[i] + added * old[i];
            const T m = mean[i] = beta1 * old_mean[i] + rest1 * g;
            const T v = square[i] = beta2 * old_square[i] + rest2 * g * g;
            w[i] = old[i] - rate * m / (std::sqrt(v) / root + eps) - shrink * old[i];
        }
    });
}

}  // namespace
}  // namespace sharedgrad
