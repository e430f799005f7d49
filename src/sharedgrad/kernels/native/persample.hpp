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
#include "norm.hpp"

namespace sharedgrad {
namespace {

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

// to[l] += what sample l has in the lanes
template <typename T>
void add_lanes(double* to, const Wide<T>& v, int samples, int alive) {
    for (int i = 0; i < kWidth<T>; ++i)
        if (i % samples < alive) to[i % samples] += v[i];
}

// squares[n] += ‖m_n‖², the whole map of sample n
template <typename T>
void add_squares(double* squares, const Map<T>& m) {
    constexpr int V = kWidth<T>;
    parallel(m.blocks(), m.operations(), [&](int b) {
        Wide<T> sum = {};
        for (int c = 0; c < m.channels; ++c)
            for (int h = 0; h < m.height; ++h) {
                const T* row = m.cell(b, c, h);
                for (std::ptrdiff_t i = 0; i < m.used(); i += V) {
                    const auto v = widen<T>(load_part(row + i, int(std::min<std::ptrdiff_t>(V, m.used() - i))));
                    sum += v * v;
                }
            }
        add_lanes<T>(squares + b * m.lanes, sum, m.lanes, m.alive(b));
    });
}

// squares[n] += Σ v², v a plain row of numbers
template <typename T>
double square(const T* v, int count) {
    constexpr int V = kWidth<T>;
    Wide<T> sum = {};
    for (int i = 0; i < count; i += V) {
        const auto part = widen<T>(load_part(v + i, std::min(V, count - i)));
        sum += part * part;
    }
    double all = 0;
    for (int i = 0; i < V; ++i) all += sum[i];
    return all;
}

// Of a dense layer's weight, and its bias if it has one: dy (N, O) and x (N, I) plain.
template <typename T>
void add_linear_squares(double* squares, const Map<T>& dy, const Map<T>& x, bool bias) {
    parallel(dy.samples, dy.operations() + x.operations(), [&](int n) {
        squares[n] += square(dy.cell(n, 0, 0), dy.channels) * (square(x.cell(n, 0, 0), x.channels) + (bias ? 1 : 0));
    });
}

// Partial squares of all tasks (tasks, N), added in the tasks' order whatever thread had them.
inline void add_tasks(double* squares, const double* partial, int tasks, int samples) {
    for (int task = 0; task < tasks; ++task)
        for (int n = 0; n < samples; ++n) squares[n] += partial[std::ptrdiff_t(task) * samples + n];
}

// Of a kernel. Where `kept` is given, its samples' gradients are left there: a map with a channel for each weight.
template <typename T>
void add_kernel_squares(double* squares, const Map<T>& dy, const Map<T>& x, const Window& g, const Map<T>* kept) {
    constexpr int V = kWidth<T>;
    const auto in = windows(x, g);
    const KernelTasks cut(dy.channels / g.groups, in.count, g.groups);
    double* const partial = memory<double>(kSquares, std::size_t(cut.count) * dy.samples);
    std::fill_n(partial, std::size_t(cut.count) * dy.samples, 0.0);
    kernel_sums(dy, x, g, in, cut, true, [&](int task, int block, const KernelSums<T>& own) {
        Wide<T> sum = {};
        for (int f = 0; f < own.filters; ++f)
            for (int t = 0; t < own.taps; ++t) {
                Vector<T> v = load(own.row(f) + t * V);
                if (dy.lanes < V) {
                    T lanes[V], samples[V] = {};
                    store(lanes, v);
                    for (int l = 0; l < dy.lanes; ++l) samples[l] = of_sample(lanes, l, dy.lanes);
                    v = load(samples);
                }
                sum += widen<T>(v) * widen<T>(v);
                if (kept) store_part(kept->cell(block, int(own.weight(f, in.count)) + t, 0), v, dy.lanes);
            }
        double* const to = partial + std::ptrdiff_t(task) * dy.samples + block * dy.lanes;
        add_lanes<T>(to, sum, dy.lanes, dy.alive(block));
    });
    add_tasks(squares, partial, cut.count, dy.samples);
}

// ---- the Gram form; its lanes are samples, all of them

// gram[p][q] = Σ_c a[c][p] · b[c][q] for the cells p, q of two rows of a map
template <typename T>
void row_products(T* gram, const T* a, const T* b, const Map<T>& m, int channels, const std::ptrdiff_t* cells) {
    constexpr int V = kWidth<T>;
    const Tiles p_tiles(m.width, kTileDeltas), q_tiles(m.width, kTileTaps);
    std::fill_n(gram, std::ptrdiff_t(m.width) * m.width * V, T(0));
    for (int i = 0; i < p_tiles.count; ++i)
        for (int k = 0; k < q_tiles.count; ++k) {
            const int p = p_tiles.begin(i), q = q_tiles.begin(k);
            outer<T>(p_tiles.size(i), q_tiles.size(k),
                     {gram + (std::ptrdiff_t(p) * m.width + q) * V, std::ptrdiff_t(m.width) * V, a + p * V, V,
                      m.channel(), b, 0, m.channel(), cells + q, channels, 1, V});
        }
}

// One group of one block: the pairs of output rows h and h + d. A pair of windows meets in pairs of cells, one for each
// kernel cell, all d · stride rows apart.
template <typename T>
struct Gram {
    const Map<T>&dy, &x;
    const Window& g;
    const std::ptrdiff_t* cells;  // of any row, from its first

    // Whether a row of x is there, for output row h and kernel row i.
    int row(int h, int i) const { return h * g.stride_h + i * g.dilation_h - g.pad_h; }

    // Σ over kernel cells of ⟨x_p, x_q⟩ with p and q the windows' cells, at columns v and w of the rows in `gram`
    Vector<T> windows(const T* gram, int v, int w) const {
        Vector<T> sum = {};
        for (int j = 0; j < g.kernel_w; ++j) {
            const int p = v * g.stride_w + j * g.dilation_w - g.pad_w, q = w * g.stride_w + j * g.dilation_w - g.pad_w;
            if (std::min(p, q) >= 0 && std::max(p, q) < x.width)
                sum += load(gram + (std::ptrdiff_t(p) * x.width + q) * kWidth<T>);
        }
        return sum;
    }

    Wide<T> rows_apart(int block, int group, int d) const {
        constexpr int V = kWidth<T>;
        const int filters = dy.channels / g.groups, channels = x.channels / g.groups, apart = d * g.stride_h;
        const std::ptrdiff_t x_gram = std::ptrdiff_t(x.width) * x.width * V;
        T* const inputs = memory<T>(kSums, x_gram * x.height + std::ptrdiff_t(dy.width) * dy.width * V);
        T* const deltas = inputs + x_gram * x.height;
        for (int a = 0; a + apart < x.height; ++a)
            row_products(inputs + a * x_gram, x.cell(block, group * channels, a),
                         x.cell(block, group * channels, a + apart), x, channels, cells);
        Wide<T> sum = {};
        for (int h = 0; h + d < dy.height; ++h) {
            row_products(deltas, dy.cell(block, group * filters, h), dy.cell(block, group * filters, h + d), dy,
                         filters, cells);
            for (int v = 0; v < dy.width; ++v) {
                Vector<T> part = {};
                for (int w = 0; w < dy.width; ++w) {
                    Vector<T> products = {};
                    for (int i = 0; i < g.kernel_h; ++i)
                        if (row(h, i) >= 0 && row(h, i) + apart < x.height)
                            products += windows(inputs + row(h, i) * x_gram, v, w);
                    part += load(deltas + (std::ptrdiff_t(v) * dy.width + w) * V) * products;
                }
                sum += widen<T>(part);
            }
        }
        return d ? sum + sum : sum;  // h + d and h as well
    }
};

template <typename T>
void add_gram_squares(double* squares, const Map<T>& dy, const Map<T>& x, const Window& g) {
    const int tasks = g.groups * dy.height, blocks = dy.blocks();
    auto* const cells = memory<std::ptrdiff_t>(kTaps, std::max(x.width, dy.width));
    for (int w = 0; w < std::max(x.width, dy.width); ++w) cells[w] = std::ptrdiff_t(w) * kWidth<T>;
    const Gram<T> gram{dy, x, g, cells};
    double* const partial = memory<double>(kSquares, std::size_t(tasks + 1) * dy.samples);
    std::fill_n(partial, std::size_t(tasks + 1) * dy.samples, 0.0);
    const double pairs = double(dy.height) * dy.width / 2;
    parallel(tasks * blocks, (dy.operations() + x.operations()) * pairs / 8, [&](int i) {
        const int block = i % blocks, task = i / blocks;  // the longest first
        const auto sum = gram.rows_apart(block, task % g.groups, task / g.groups);
        double* const to = partial + std::ptrdiff_t(task) * dy.samples + block * dy.lanes;
        add_lanes<T>(to, sum, dy.lanes, dy.alive(block));
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
    parallel(x.channels, 2 * x.operations(), [&](int c) {
        const T inverse = T(1) / std::sqrt(variance[c] + epsilon);
        for (int b = 0; b < x.blocks(); ++b) {
            Vector<T> sum = {}, product = {};
            for (int h = 0; h < x.height; ++h)
                vectors_of<T>(x.used(), [&](int, std::ptrdiff_t i, int n) {
                    Vector<T> d = get(dy.cell(b, c, h) + i, n);
                    if (y) d = get(y->cell(b, c, h) + i, n) > T(0) ? d : Vector<T>{};
                    sum += d;
                    product += d * (get(x.cell(b, c, h) + i, n) - splat(mean[c])) * splat(inverse);
                });
            T sums[kWidth<T>], products[kWidth<T>];
            store(sums, sum);
            store(products, product);
            for (int l = 0; l < x.alive(b); ++l) {
                const std::ptrdiff_t at = (std::ptrdiff_t(b) * x.lanes + l) * x.channels + c;
                if (dweight) dweight[at] = of_sample(products, l, x.lanes);
                if (dbias) dbias[at] = of_sample(sums, l, x.lanes);
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
        factors.data[n] = norm > max_norm ? T(max_norm / norm) : T(1);
    }
}

// The factors of a vector's lanes.
template <typename T>
Vector<T> lane_factors(const T* factors, const Map<T>& m, int block) {
    T lanes[kWidth<T>];
    for (int i = 0; i < kWidth<T>; ++i) lanes[i] = factors[block * m.lanes + i % m.lanes];
    return load(lanes);
}

// m_n ← factors[n] · m_n
template <typename T>
void scale_samples(const Map<T>& m, const T* factors) {
    constexpr int V = kWidth<T>;
    parallel(m.blocks() * m.channels, m.operations(), [&](int task) {
        const int block = task / m.channels;
        const Vector<T> factor = lane_factors(factors, m, block);
        for (int h = 0; h < m.height; ++h) {
            T* row = m.cell(block, task % m.channels, h);
            for (std::ptrdiff_t i = 0; i < m.used(); i += V) {
                const int count = int(std::min<std::ptrdiff_t>(V, m.used() - i));
                store_part(row + i, load_part(row + i, count) * factor, count);
            }
        }
    });
}

// sum[c] = Σ_n factors[n] · m_n[c] for maps of one cell
template <typename T>
void weighted_sum(T* sum, const Map<T>& m, const T* factors) {
    constexpr int V = kWidth<T>, R = 16;
    const int pieces = ceil_div(m.channels, V);
    parallel(ceil_div(pieces, R), m.operations(), [&](int task) {
        for (int piece = task * R; piece < std::min(pieces, (task + 1) * R); ++piece) {
            const int first = piece * V, count = std::min(V, m.channels - first);
            if (m.lanes == 1) {
                Vector<T> own = {};
                for (int n = 0; n < m.samples; ++n) own += splat(factors[n]) * load_part(m.cell(n, first, 0), count);
                store_part(sum + first, own, count);
                continue;
            }
            for (int c = first; c < first + count; ++c) {
                Vector<T> own = {};
                for (int b = 0; b < m.blocks(); ++b)
                    own += load_part(factors + b * m.lanes, m.lanes) * load_part(m.cell(b, c, 0), m.lanes);
                sum[c] = total<T>(own);
            }
        }
    });
}

}  // namespace
}  // namespace sharedgrad
