// 1×1 convolutions: products of matrices over the cells of all channels, in blocks or in plain arrays as they lie.
// Where windows at a stride leave cells of a plain array out, those that they see are copied side by side.
#pragma once

#include "conv_gradient.hpp"
#include "product.hpp"

namespace sharedgrad {
namespace {

using PointwiseMemory = Owner<kSums, kParts>;
static_assert(disjoint<PointwiseMemory, ProductMemory>());

constexpr int kPointwiseParts = 8;  // of the cells, each with weight gradients of its own
constexpr int kCopied = 1 << 15;    // numbers that are copied at a time; or else those of a row

template <typename T>
bool pointwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    if (g.groups != 1 || g.kernel_h * g.kernel_w != 1 || g.pad_h || g.pad_w) return false;
    if (small.plain() && big.plain())  // each window sees an input
        return (small.height - 1) * g.stride_h < big.height && (small.width - 1) * g.stride_w < big.width;
    const bool same = g.stride_h * g.stride_w == 1 && small.height == big.height && small.width == big.width;
    return big.lanes == kWidth<T> && same;
}

// Numbers of a channel that lie side by side in all maps, of a block or of a row, as the columns of matrices.
template <typename T>
struct Runs {
    const Map<T>&small, &big;
    const Window& g;
    bool spread = small.height != big.height || small.width != big.width;  // whether windows leave cells out
    int of_block, numbers;

    Runs(const Map<T>& small, const Map<T>& big, const Window& g, const Map<T>* third = nullptr)
        : small(small), big(big), g(g) {
        const bool bare = small.bare() && big.bare() && (!third || third->bare());
        const bool much = spread && small.height * small.used() * big.channels > kCopied;
        of_block = bare && !much ? 1 : small.height;
        numbers = int(small.used() * small.height / of_block);
    }
    int count() const { return small.blocks() * of_block; }
    bool copied(const Map<T>& map) const { return spread && &map == &big; }
    Matrix<T> at(const Map<T>& map, int run) const {
        if (copied(map)) return {PointwiseMemory::memory<T, kSums>(std::size_t(map.channels) * numbers), numbers};
        return {map.cell(run / of_block, 0, run % of_block), map.channel()};
    }

    // function(row, its copy, how many numbers of the channel there are from it on) for what windows of a run see
    template <typename Function>
    void each_row(int run, const Matrix<T>& copy, const Function& function) const {
        const int first = run % of_block * g.stride_h, rows = small.height / of_block, step = g.stride_h * big.row();
        T* row = big.cell(run / of_block, 0, first);
        for (int c = 0; c < big.channels; ++c, row += big.channel())
            for (int h = 0; h < rows; ++h)
                function(row + h * step, copy[c] + h * small.width, (big.height - first) * big.row() - h * step);
    }
    Matrix<T> seen(const Map<T>& map, int run) const {
        const Matrix<T> cells = at(map, run);
        if (copied(map))
            each_row(run, cells, [&](const T* x, T* to, int n) { take_each(to, x, small.width, g.stride_w, n); });
        return cells;
    }
    void put_back(int run, const Matrix<T>& copy) const {
        each_row(run, copy, [&](T* to, const T* from, int n) {
            std::fill_n(to, std::min(g.stride_h * int(big.row()), n), T(0));
            for (int i = 0; i < small.width; ++i) to[std::ptrdiff_t(i) * g.stride_w] = from[i];
        });
    }
};

// out (F, cells) = w (F, C) · in (C, cells) + bias or what out holds; then perhaps ReLU, or back through one.
template <typename T>
void multiply_cells(const Runs<T>& runs, const Map<T>& out, const Map<T>& in, const Matrix<const T>& w,
                    const Ends<T>& ends, const Map<T>* through) {
    const int count = runs.count();
    const Product<T> product(w, out.channels, runs.numbers, in.channels, ceil_div(kTasks, std::max(1, count)));
    const int tasks = runs.spread ? 1 : product.tasks();  // copies serve a whole run
    parallel(count * tasks, runs.small.operations() * runs.big.channels / 8, [&](int task) {
        const int run = task / tasks;
        const Matrix<T> cells = runs.seen(in, run), to = runs.at(out, run);
        const Matrix<T> gate = through ? runs.at(*through, run) : Matrix<T>{};
        Ends<T> own = ends;
        own.gate = {gate.data, gate.row};
        for (int t = task % tasks; t < product.tasks(); t += tasks) product.run(t, to, {cells.data, cells.row}, own);
        if (runs.copied(out)) runs.put_back(run, to);
    });
}

// dw[f][c] = Σ dy[f] · x[c]
template <typename T>
void pointwise_weight_gradient(T* dw, const Runs<T>& runs) {
    const Map<T>&dy = runs.small, &x = runs.big;
    const EvenRanges parts(runs.count(), ceil_div(runs.count(), kPointwiseParts));
    const std::ptrdiff_t kernel = std::ptrdiff_t(dy.channels) * x.channels;
    const bool few = std::min(dy.channels, x.channels) <= kDotColumns;
    T* const all = PointwiseMemory::memory<T, kParts>(parts.count * kernel);
    parallel(parts.count, dy.operations() * x.channels / 8, [&](int part) {
        const Matrix<T> sums{all + part * kernel, x.channels};
        for (int run = parts.begin(part); run < parts.begin(part + 1); ++run) {
            const Matrix<T> delta = runs.at(dy, run), cells = runs.seen(x, run);
            const Matrix<const T> rows{delta.data, delta.row}, columns{cells.data, cells.row};
            const Ends<T> ends{nullptr, nullptr, run > parts.begin(part)};
            if (few)
                dot_products<T>(sums, ends, rows, columns, dy.channels, x.channels, runs.numbers);
            else
                product<T>(sums, ends, rows, columns.turned(), dy.channels, x.channels, runs.numbers);
        }
    });
    add_parts(dw, all, parts.count, kernel);
}

}  // namespace
}  // namespace sharedgrad
