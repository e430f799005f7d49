// 1×1 convolutions: products of matrices over the cells of all channels, in blocks or in plain arrays as they lie.
#pragma once

#include "conv.hpp"
#include "conv_gradient.hpp"
#include "maps.hpp"
#include "product.hpp"

namespace sharedgrad {
namespace {

using PointwiseMemory = Owner<kParts>;
using PointwiseSumsMemory = Owner<kWeights>;
static_assert(disjoint<PointwiseMemory, PointwiseSumsMemory, ProductMemory>());

constexpr int kPointwiseParts = 8;  // of the cells, each with weight gradients of its own

template <typename T>
bool pointwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    const bool same = g.stride_h * g.stride_w == 1 && small.height == big.height && small.width == big.width;
    return g.groups == 1 && g.kernel_h * g.kernel_w == 1 && !g.pad_h && !g.pad_w &&
           ((small.plain() && big.plain()) || (big.lanes == kWidth<T> && same));
}

// The numbers of a channel that lie side by side in some maps, all of them or row by row, as the columns of a matrix.
template <typename T>
struct Runs {
    int of_block, numbers;
    Runs(const Map<T>& a, bool whole) : of_block(whole ? 1 : a.height), numbers(int(a.used() * a.height / of_block)) {}
    Matrix<T> at(const Map<T>& map, int run) const {
        return {map.cell(run / of_block, 0, run % of_block), map.channel()};
    }
};

// out (F, cells) = w (F, C) · in (C, cells) + bias or what out holds; then perhaps ReLU, or back through one.
template <typename T>
void multiply_cells(const Map<T>& out, const Map<T>& in, const Matrix<const T>& w, const T* bias, bool add, bool relu,
                    const Map<T>* through) {
    const Runs<T> runs(out, out.bare() && in.bare() && (!through || through->bare()));
    const int count = out.blocks() * runs.of_block;
    const Product<T> product(w, out.channels, runs.numbers, in.channels, ceil_div(kTasks, std::max(1, count)));
    parallel(count * product.tasks(), out.operations() * in.channels / 8, [&](int task) {
        const int run = task / product.tasks();
        const Matrix<T> cells = runs.at(in, run), gate = through ? runs.at(*through, run) : Matrix<T>{};
        product.run(task % product.tasks(), runs.at(out, run), {cells.data, cells.row},
                    {nullptr, bias, add, relu, {gate.data, gate.row}});
    });
}

// Of a plain map at stride the cells that 1×1 windows see, or where they would go: (N, C, *P); itself at stride 1.
template <typename T>
Map<T> seen(const Map<T>& big, const Map<T>& small) {
    if (big.height == small.height && big.width == small.width) return big;
    Map<T> own = big;
    own.height = small.height, own.width = small.width;
    own.data = PointwiseMemory::memory<T, kParts>(own.size());
    return own;
}

// function(a number of the map, the one of `own` that is seen) for all that are
template <typename T, typename Function>
void each_seen(const Map<T>& big, const Map<T>& own, const Window& g, const Function& function) {
    parallel(own.samples, own.operations(), [&](int n) {
        for (int c = 0; c < own.channels; ++c)
            for (int h = 0; h < own.height; ++h) {
                T *const from = big.cell(n, c, h * g.stride_h), *const to = own.cell(n, c, h);
                for (int w = 0; w < own.width; ++w) function(from[std::ptrdiff_t(w) * g.stride_w], to[w]);
            }
    });
}

template <typename T>
Map<T> gathered(const Map<T>& x, const Map<T>& y, const Window& g) {
    const Map<T> own = seen(x, y);
    if (own.data != x.data) each_seen(x, own, g, [](T from, T& to) { to = from; });
    return own;
}

template <typename T>
void pointwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    multiply_cells<T>(y, gathered(x, y, g), {w, x.channels}, bias, false, relu, nullptr);
}

template <typename T>
void pointwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    const Matrix<const T> turned{w, 1, dx.channels};
    const Map<T> own = seen(dx, dy);
    if (own.data == dx.data) return multiply_cells<T>(dx, dy, turned, nullptr, add, false, through);
    multiply_cells<T>(own, dy, turned, nullptr, false, false, nullptr);
    if (!add) std::fill_n(dx.data, dx.size(), T(0));
    each_seen(dx, own, g, [](T& to, T from) { to += from; });
    if (through) activate_backward(dx, dx, *through, kReLU);
}

// dw[f][c] = Σ dy[f] · x[c]
template <typename T>
void pointwise_weight_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    const Map<T> in = gathered(x, dy, g);
    const Runs<T> runs(dy, dy.bare() && in.bare());
    const EvenRanges parts(dy.blocks() * runs.of_block, ceil_div(dy.blocks() * runs.of_block, kPointwiseParts));
    const std::ptrdiff_t kernel = std::ptrdiff_t(dy.channels) * x.channels;
    T* const all = PointwiseSumsMemory::memory<T, kWeights>(parts.count * kernel);
    parallel(parts.count, dy.operations() * x.channels / 8, [&](int part) {
        for (int run = parts.begin(part); run < parts.begin(part + 1); ++run) {
            const Matrix<T> delta = runs.at(dy, run), cells = runs.at(in, run);
            product<T>({all + part * kernel, x.channels}, {nullptr, nullptr, run > parts.begin(part)},
                       {delta.data, delta.row}, {cells.data, 1, cells.row}, dy.channels, x.channels, runs.numbers);
        }
    });
    add_parts(dw, all, parts.count, kernel);
}

}  // namespace
}  // namespace sharedgrad
