// The gradients of single samples without keeping them: their norms, and their sum with a weight for each sample.
//
// The norms of all parameters add: Σ over parameters of ‖g_n‖², in float64. A parameter's own come from
//   a dense layer      ‖δ_n ⊗ x_n‖² = ‖δ_n‖² · ‖x_n‖²
//   a kernel           the sums that the weight gradient has in its lanes before it adds samples; or, where the kernel
//                      is large and the map small, the inner products between positions (the Gram form)
//                      ‖Σ_p δ_p ⊗ x_p‖² = Σ_{p,q} ⟨δ_p, δ_q⟩ · ⟨x_p, x_q⟩ with x_p the window at position p
//   all others         the gradients themselves, which are small
#pragma once

#include <cmath>

#include "conv_gradient.hpp"
#include "dense.hpp"
#include "norm.hpp"

namespace sharedgrad {
namespace {

using KernelSquaresMemory = Owner<kDoubles>;
static_assert(disjoint<WindowMemory, KernelSumsMemory, KernelSquaresMemory>());
using GramMemory = Owner<kTaps, kSums, kDoubles>;

template <typename T>
struct WideOf {
    typedef double type __attribute__((vector_size(kWidth<T> * sizeof(double))));
};
template <typename T>
using Wide = typename WideOf<T>::type;

template <typename T>
inline Wide<T> widen(Vector<T> v) {
    return __builtin_convertvector(v, Wide<T>);
}

// to[l] += what sample l has in its lane
template <typename T>
void add_lanes(double* to, const Wide<T>& v, int alive) {
    for (int l = 0; l < alive; ++l) to[l] += v[l];
}

// ‖m_n‖² of plain vectors
template <typename T>
double square(const Map<T>& m, int n) {
    Wide<T> lanes = {};
    vectors_of<T>(m.channels, [&, row = m.cell(n, 0, 0)](auto i, auto count, int) {
        const auto v = widen<T>(load_part(row + i, count));
        lanes += v * v;
    });
    double sum = 0;
    for (int l = 0; l < kWidth<T>; ++l) sum += lanes[l];
    return sum;
}

// squares[n] += ‖m_n‖² of plain vectors
template <typename T>
void add_squares(double* squares, const Map<T>& m) {
    parallel(m.samples, m.operations(), [&](int n) { squares[n] += square(m, n); });
}

// Of a dense layer's weight, and its bias if it has one: dy (N, O) and x (N, I) plain.
template <typename T>
void add_linear_squares(double* squares, const Map<T>& dy, const Map<T>& x, bool bias) {
    parallel(dy.samples, dy.operations() + x.operations(),
             [&](int n) { squares[n] += square(dy, n) * (square(x, n) + (bias ? 1 : 0)); });
}

// Partial squares of all tasks (tasks, N), added in the tasks' order whatever thread had them.
inline void add_tasks(double* squares, const double* partial, int tasks, int samples) {
    for (int task = 0; task < tasks; ++task)
        for (int n = 0; n < samples; ++n) squares[n] += partial[std::ptrdiff_t(task) * samples + n];
}

// Of a kernel. Where `gradients` is given, its samples' gradients are left there: a map with a channel for each weight.
template <typename T>
void add_kernel_squares(double* squares, const Map<T>& dy, const Map<T>& x, const Window& g, const Map<T>* gradients) {
    constexpr int V = kWidth<T>;
    const WeightGradient<T> pass{dy, x, g, nullptr};
    double* const partial = KernelSquaresMemory::memory<double, kDoubles>(std::size_t(pass.cut.count) * dy.samples);
    std::fill_n(partial, std::size_t(pass.cut.count) * dy.samples, 0.0);
    pass.run(true, [&](int task, int block, const KernelSums<T>& own) {
        Wide<T> sum = {};
        for (int f = 0; f < own.filters; ++f) {
            const T* from = own.row(f);
            T* to = gradients ? gradients->cell(block, int(own.weight(f, pass.taps.count())), 0) : nullptr;
            for (int t = 0; t < own.taps; ++t, from += V) {
                const Vector<T> v = load(from);
                sum += widen<T>(v) * widen<T>(v);
                if (to) store(to + t * V, v);
            }
        }
        double* const to = partial + std::ptrdiff_t(task) * dy.samples + block * dy.lanes;
        add_lanes<T>(to, sum, dy.alive(block));
    });
    add_tasks(squares, partial, pass.cut.count, dy.samples);
}

// ---- the Gram form; its lanes are samples, all of them

constexpr int kRowPart = 192;               // vectors of each of two rows that stay in the first-level cache
constexpr std::size_t kProducts = 1 << 21;  // bytes of products for which a task goes over the map once

// products[p][q] += Σ_c a[c][p] · b[c][q] for the cells p, q of two rows of a map
template <typename T>
void add_row_products(T* products, const T* a, const T* b, const Map<T>& m, int channels, const std::ptrdiff_t* cells) {
    constexpr int V = kWidth<T>;
    const EvenRanges p_tiles(m.width, kTileDeltas), q_tiles(m.width, kTileTaps);
    for (int i = 0; i < p_tiles.count; ++i)
        for (int k = 0; k < q_tiles.count; ++k) {
            const int p = p_tiles.begin(i), q = q_tiles.begin(k);
            outer<T>(p_tiles.size(i), q_tiles.size(k),
                     {products + (std::ptrdiff_t(p) * m.width + q) * V, std::ptrdiff_t(m.width) * V, a + p * V, V,
                      m.channel(), b, 0, m.channel(), cells + q, channels, 1, true});
        }
}

// All pairs of rows h and h + apart of one block of a map, for apart = first · step … (end − 1) · step.
template <typename T>
struct RowPairs {
    T* products;  // [apart][h][cell of row h][cell of row h + apart][lane]
    const Map<T>& m;
    int step, first, end;

    std::ptrdiff_t pair() const { return std::ptrdiff_t(m.width) * m.width * kWidth<T>; }
    T* of(int h, int d) const { return products + ((d - first) * std::ptrdiff_t(m.height) + h) * pair(); }
    std::ptrdiff_t size() const { return (end - first) * m.height * pair(); }

    void multiply(int block, int channel, int channels, const std::ptrdiff_t* cells) const {
        const EvenRanges parts(channels, std::max(1, kRowPart / m.width));
        for (int h = 0; h < m.height; ++h)
            for (int d = first; d < end && h + d * step < m.height; ++d) {
                std::fill_n(of(h, d), pair(), T(0));
                for (int part = 0; part < parts.count; ++part) {
                    const int c = channel + parts.begin(part);
                    add_row_products(of(h, d), m.cell(block, c, h), m.cell(block, c, h + d * step), m, parts.size(part),
                                     cells);
                }
            }
    }
};

// Windows at output rows h and h + d meet in pairs of cells, one for each kernel cell, all d · stride rows apart.
template <typename T>
struct Gram {
    const RowPairs<T>&deltas, &inputs;
    const Window& g;
    T* sums;  // for a row of windows

    // sums[w] = Σ over kernel cells of ⟨x_p, x_q⟩, p and q the cells of the windows at columns v and w
    void windows(int h, int d, int v) const {
        constexpr int V = kWidth<T>;
        const Map<T>& x = inputs.m;
        std::fill_n(sums, deltas.m.width * V, T(0));
        for (int i = 0; i < g.kernel_h; ++i) {
            const int row = h * g.stride_h + i * g.dilation_h - g.pad_h;
            if (row < 0 || row + d * g.stride_h >= x.height) continue;
            for (int j = 0; j < g.kernel_w; ++j) {
                const int shift = j * g.dilation_w - g.pad_w, p = v * g.stride_w + shift;
                if (p < 0 || p >= x.width) continue;
                const T* products = inputs.of(row, d) + (std::ptrdiff_t(p) * x.width + shift) * V;
                const int begin = shift < 0 ? ceil_div(-shift, g.stride_w) : 0;
                const int end = x.width > shift ? std::min(deltas.m.width, ceil_div(x.width - shift, g.stride_w)) : 0;
                for (int w = begin; w < end; ++w)
                    store(sums + w * V, load(sums + w * V) + load(products + std::ptrdiff_t(w) * g.stride_w * V));
            }
        }
    }

    Wide<T> total() const {
        constexpr int V = kWidth<T>;
        const Map<T>& dy = deltas.m;
        Wide<T> sum = {};
        for (int d = deltas.first; d < deltas.end; ++d)
            for (int h = 0; h + d < dy.height; ++h)
                for (int v = 0; v < dy.width; ++v) {
                    windows(h, d, v);
                    const T* row = deltas.of(h, d) + std::ptrdiff_t(v) * dy.width * V;
                    Vector<T> part = {};
                    for (int w = 0; w < dy.width; ++w) part += load(row + w * V) * load(sums + w * V);
                    sum += widen<T>(d ? part + part : part);  // h + d and h as well
                }
        return sum;
    }
};

template <typename T>
void add_gram_squares(double* squares, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const int columns = std::max(x.width, dy.width);
    auto* const cells = GramMemory::memory<std::ptrdiff_t, kTaps>(columns);
    for (int w = 0; w < columns; ++w) cells[w] = std::ptrdiff_t(w) * V;
    const double each =
        (double(dy.height) * dy.width * dy.width + double(x.height) * x.width * x.width) * V * sizeof(T);
    const EvenRanges ranges(dy.height, std::max(1, int(kProducts / each)));
    const int tasks = g.groups * ranges.count, blocks = dy.blocks();
    double* const partial = GramMemory::memory<double, kDoubles>(std::size_t(tasks + 1) * dy.samples);
    std::fill_n(partial, std::size_t(tasks + 1) * dy.samples, 0.0);
    parallel(tasks * blocks, dy.operations() * dy.height * dy.width / 8, [&](int i) {
        const int block = i % blocks, task = i / blocks, group = task % g.groups, range = task / g.groups;
        const int first = ranges.begin(range), end = ranges.begin(range + 1);
        RowPairs<T> deltas{nullptr, dy, 1, first, end}, inputs{nullptr, x, g.stride_h, first, end};
        T* const sums = GramMemory::memory<T, kSums>(deltas.size() + inputs.size() + dy.width * V);
        deltas.products = sums + dy.width * V;
        inputs.products = deltas.products + deltas.size();
        deltas.multiply(block, group * (dy.channels / g.groups), dy.channels / g.groups, cells);
        inputs.multiply(block, group * (x.channels / g.groups), x.channels / g.groups, cells);
        double* const to = partial + std::ptrdiff_t(task) * dy.samples + block * dy.lanes;
        add_lanes<T>(to, Gram<T>{deltas, inputs, g, sums}.total(), dy.alive(block));
    });
    double* const all = partial + std::ptrdiff_t(tasks) * dy.samples;
    add_tasks(all, partial, tasks, dy.samples);
    for (int n = 0; n < dy.samples; ++n) squares[n] += all[n] < 0 ? 0 : all[n];  // below 0 by rounding alone
}

// Of batch normalization: dweight (N, C) = Σ dy·x̂ and dbias (N, C) = Σ dy over each sample's positions; either may be
// null. Where y is given, dy goes through its ReLU first.
template <typename T>
void normalize_gradients(T* dweight, T* dbias, const Map<T>& dy, const Map<T>& x, const Map<T>* y, const T* mean,
                         const T* variance, T epsilon) {
    parallel(Group<T>::count(x), 2 * x.operations(), [&](int task) {
        const Group<T> group{x, task};
        const Scaling<T> scaled(group, mean, variance, mean, mean, epsilon);
        for (int b = 0; b < group.blocks(); ++b) {
            Vector<T> sum = {}, product = {};
            for (int h = 0; h < x.height; ++h)
                vectors_of<T>(x.used(), [&](auto i, auto n, int) {
                    Vector<T> d = load_part(group.row(dy, b, h) + i, n);
                    if (y) d = relu_gate<T>(d, load_part(group.row(*y, b, h) + i, n));
                    sum += d;
                    product += d * (load_part(group.row(x, b, h) + i, n) - scaled.mean) * scaled.inverse;
                });
            for (int l = 0; l < group.alive(b); ++l) {
                const std::ptrdiff_t at = x.number(group.block(b), group.index, l);
                if (dweight) dweight[at] = product[l];
                if (dbias) dbias[at] = sum[l];
            }
        }
    });
}

// ---- the weighted sum

// factors[n] = min(1, max_norm / norms[n]); those of padding lanes are zero
template <typename T>
void clip_factors(const Map<T>& factors, const Map<T>& norms, const double* squares, double max_norm) {
    std::fill_n(factors.data, factors.size(), T(0));
    for (int n = 0; n < norms.channels; ++n) {
        const double norm = std::sqrt(squares[n]);
        norms.data[n] = T(norm);
        factors.data[n] = norm <= max_norm ? T(1) : T(max_norm / norm);  // NaN stays NaN
    }
}

// m_n ← factors[n] · m_n, of plain vectors or of maps whose lanes are samples
template <typename T>
void scale_samples(const Map<T>& m, const T* factors) {
    Map<T> rows = m;
    if (m.lanes == 1) rows.channels = 1, rows.width = m.channels;  // vectors
    channels_of(rows, m.operations(), [&](int b, int c) {
        const auto factor = m.lanes == 1 ? splat(factors[b]) : load(factors + b * m.lanes);
        for (int h = 0; h < rows.height; ++h)
            vectors_of<T>(rows.used(), [&, row = rows.cell(b, c, h)](auto i, auto n, int) {
                store_part(row + i, load_part(row + i, n) * factor, n);
            });
    });
}

// sum[c] = Σ_n factors[n] · m_n[c] for maps of one cell
template <typename T>
void weighted_sum(T* sum, const Map<T>& m, const T* factors) {
    if (m.lanes == 1)
        return product<T>({sum, m.channels}, {}, {factors, m.samples}, matrix(m), 1, m.channels, m.samples);
    constexpr int R = 16;
    const EvenRanges pieces(m.channels, R);  // of neighbouring channels
    rows_in_tasks(pieces.count, m.operations(), [&](int piece) {
        const int first = pieces.begin(piece), count = pieces.size(piece);
        Vector<T> lanes[R] = {};
        for (int b = 0; b < m.blocks(); ++b) {
            const Vector<T> factor = load(factors + b * m.lanes);
            const T* from = m.cell(b, first, 0);
            for (int c = 0; c < count; ++c) lanes[c] += factor * load(from + c * m.lanes);
        }
        T own[R];
        sum_lanes(own, lanes);
        std::copy_n(own, count, sum + first);
    });
}

}  // namespace
}  // namespace sharedgrad
