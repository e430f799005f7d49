// The steps of optimizers: one pass over each parameter's memory, all parameters in one call.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"

namespace sharedgrad {
namespace {

constexpr std::ptrdiff_t kUpdatePiece = 1 << 12;  // numbers worth handing to a thread

// New numbers may take the place of old ones: each is read before it is written, so lanes do not depend on each other.
#define SHAREDGRAD_EACH _Pragma("GCC ivdep")

// function(update, begin, end) over pieces of all updates
template <typename T, typename Function>
void pieces_of(const Update<T>* updates, int count, const Function& function) {
    std::vector<int> first(count + 1, 0);  // piece of each update; the last number is that of all pieces
    double size = 0;
    for (int i = 0; i < count; ++i) {
        first[i + 1] = first[i] + int((updates[i].size + kUpdatePiece - 1) / kUpdatePiece);
        size += double(updates[i].size);
    }
    parallel(first[count], 2 * size, [&](int piece) {
        const int i = int(std::upper_bound(first.begin(), first.end(), piece) - first.begin()) - 1;
        const std::ptrdiff_t begin = (piece - first[i]) * kUpdatePiece;
        function(updates[i], begin, std::min(updates[i].size, begin + kUpdatePiece));
    });
}

//   g ← gradient + decay · w        v ← momentum · v + g        w ← w − lr · v   (Nesterov: w − lr · (g + momentum ·
//   v))
// v is left out where there is no momentum.
template <typename T>
void sgd(const Update<T>* updates, int count, const SGDSettings& s) {
    const T lr = T(s.lr), momentum = T(s.momentum), decay = T(s.weight_decay);
    pieces_of(updates, count, [=](const Update<T>& u, std::ptrdiff_t begin, std::ptrdiff_t end) {
        T* const w = u.value;
        const T *const old = u.old_value, *const gradient = u.gradient;
        if (!u.state[0]) {
            SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) w[i] = old[i] - lr * (gradient[i] + decay * old[i]);
            return;
        }
        T* const velocity = u.state[0];
        const T* const old_velocity = u.old_state[0];
        SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) {
            const T g = gradient[i] + decay * old[i], v = momentum * old_velocity[i] + g;
            velocity[i] = v;
            w[i] = old[i] - lr * (s.nesterov ? g + momentum * v : v);
        }
    });
}

//   m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        w ← w − lr · m̂ / (√v̂ + ε)
// m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ), with t the parameter's own number of steps.
template <typename T>
void adam(const Update<T>* updates, int count, const AdamSettings& s) {
    const T beta1 = T(s.beta1), beta2 = T(s.beta2), rest1 = T(1 - s.beta1), rest2 = T(1 - s.beta2), eps = T(s.eps);
    const T added = s.decoupled ? T(0) : T(s.weight_decay), shrink = s.decoupled ? T(s.lr * s.weight_decay) : T(0);
    pieces_of(updates, count, [=](const Update<T>& u, std::ptrdiff_t begin, std::ptrdiff_t end) {
        const T size = T(s.lr / (1 - std::pow(s.beta1, u.steps)));
        const T root = T(std::sqrt(1 - std::pow(s.beta2, u.steps)));
        T *const w = u.value, *const mean = u.state[0], *const square = u.state[1];
        const T *const old = u.old_value, *const gradient = u.gradient;
        const T *const old_mean = u.old_state[0], *const old_square = u.old_state[1];
        SHAREDGRAD_EACH for (auto i = begin; i < end; ++i) {
            const T g = gradient[i] + added * old[i];
            const T m = mean[i] = beta1 * old_mean[i] + rest1 * g;
            const T v = square[i] = beta2 * old_square[i] + rest2 * g * g;
            w[i] = old[i] - size * m / (std::sqrt(v) / root + eps) - shrink * old[i];
        }
    });
}

}  // namespace
}  // namespace sharedgrad
