// Everything that goes over maps once, row by row: activations, sums, pooling.
#pragma once

#include <limits>

#include "elementary.hpp"
#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

constexpr std::ptrdiff_t kPiece = 1 << 14;  // numbers worth handing to a thread

// function(offset, count) over rows of `map`, or over pieces of it where no map has margins and all is one row.
// `offset` is for the first map; rows of other maps of the same shape are found with `cell`.
template <typename T, typename Function>
void rows_of(const Map<T>& map, bool one, const Function& function) {
    if (one) {
        const std::ptrdiff_t size = map.size();
        parallel(int((size + kPiece - 1) / kPiece), double(size), [&](int i) {
            const std::ptrdiff_t begin = i * kPiece;
            function(0, 0, 0, begin, std::min(kPiece, size - begin));
        });
        return;
    }
    parallel(map.blocks() * map.channels, double(map.size()), [&](int task) {
        for (int h = 0; h < map.height; ++h) function(task / map.channels, task % map.channels, h, 0, map.used());
    });
}

// A function of numbers, as one of vectors.
template <typename T, typename F>
auto lanewise(const F& f) {
    return [f](Vector<T> v) {
        T lanes[kWidth<T>];
        store(lanes, v);
        for (int l = 0; l < kWidth<T>; ++l) lanes[l] = f(lanes[l]);
        return load(lanes);
    };
}

// y[i] = f(x[i]), vector by vector; y may lie where x lies
template <typename T, typename F>
void each(const Map<T>& y, const Map<T>& x, const F& f) {
    constexpr int V = kWidth<T>;
    rows_of(x, x.bare() && y.bare(), [&](int b, int c, int h, std::ptrdiff_t at, std::ptrdiff_t n) {
        T* to = y.cell(b, c, h) + at;
        const T* from = x.cell(b, c, h) + at;
        std::ptrdiff_t i = 0;
        for (; i + V <= n; i += V) store(to + i, f(load(from + i)));
        if (i < n) store_part(to + i, f(load_part(from + i, int(n - i))), int(n - i));
    });
}

template <typename T, typename F>
void each(const Map<T>& y, const Map<T>& a, const Map<T>& b, const F& f) {
    constexpr int V = kWidth<T>;
    rows_of(a, a.bare() && b.bare() && y.bare(), [&](int block, int c, int h, std::ptrdiff_t at, std::ptrdiff_t n) {
        T* to = y.cell(block, c, h) + at;
        const T *p = a.cell(block, c, h) + at, *q = b.cell(block, c, h) + at;
        std::ptrdiff_t i = 0;
        for (; i + V <= n; i += V) store(to + i, f(load(p + i), load(q + i)));
        if (i < n) store_part(to + i, f(load_part(p + i, int(n - i)), load_part(q + i, int(n - i))), int(n - i));
    });
}

// ---- activations

template <typename T>
void activate(const Map<T>& y, const Map<T>& x, int kind) {
    using V = Vector<T>;
    switch (kind) {
        case kReLU:
            return each(y, x, [](V v) { return relu_of<T>(v); });
        case kSigmoid:
            return each(y, x, lanewise<T>([](T v) { return sigmoid_of(v); }));
        case kTanh:
            return each(y, x, lanewise<T>([](T v) { return tanh_of(v); }));
        default:
            return each(y, x, [](V v) { return v; });
    }
}

template <typename T>
void activate_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& y, int kind) {
    using V = Vector<T>;
    switch (kind) {
        case kReLU:
            return each(dx, dy, y, [](V up, V out) { return relu_gate<T>(up, out); });
        case kSigmoid:
            return each(dx, dy, y, [](V up, V out) { return up * out * (T(1) - out); });
        case kTanh:
            return each(dx, dy, y, [](V up, V out) { return up * (T(1) - out * out); });
        default:
            return each(dx, dy, [](V up) { return up; });
    }
}

template <typename T>
void add(const Map<T>& y, const Map<T>& a, const Map<T>& b, int kind) {
    using V = Vector<T>;
    if (kind == kReLU)
        each(y, a, b, [](V p, V q) { return relu_of<T>(p + q); });
    else
        each(y, a, b, [](V p, V q) { return p + q; });
}

template <typename T>
void multiply(const Map<T>& y, const Map<T>& a, const Map<T>& b) {
    each(y, a, b, [](Vector<T> p, Vector<T> q) { return p * q; });
}

// The zeros around one channel of a block.
template <typename T>
void clear_margins(const Map<T>& map, int block, int c) {
    T* row = map.data + block * map.block() + c * map.channel();
    const std::ptrdiff_t left = std::ptrdiff_t(map.left) * map.lanes, right = std::ptrdiff_t(map.right) * map.lanes;
    std::fill_n(row, map.top * map.row(), T(0));
    row += map.top * map.row();
    for (int h = 0; h < map.height; ++h, row += map.row()) {
        std::fill_n(row, left, T(0));
        std::fill_n(row + left + map.used(), right, T(0));
    }
    std::fill_n(row, map.bottom * map.row(), T(0));
}

template <typename T>
void clear_margins(const Map<T>& map) {
    if (map.bare()) return;
    parallel(map.blocks() * map.channels, double(map.size()),
             [&](int task) { clear_margins(map, task / map.channels, task % map.channels); });
}

// ---- pooling

// The cells of one window that lie inside the map: function(row, column).
template <typename Function>
void window_cells(const Window& g, int height, int width, int h, int w, const Function& function) {
    const int top = h * g.stride_h - g.pad_h, left = w * g.stride_w - g.pad_w;
    for (int i = std::max(0, top); i < std::min(height, top + g.kernel_h); ++i)
        for (int j = std::max(0, left); j < std::min(width, left + g.kernel_w); ++j) function(i, j);
}

// A cell's samples: one vector where they fill it, else one by one. function(lane, read), where read(p) gives what lies
// at p, a vector or a number, and put(p, v) writes it.
template <typename T, typename Function>
void cell_lanes(int lanes, const Function& function) {
    if (lanes == kWidth<T>)
        return function(0, [](const T* p) { return load(p); }, [](T* p, Vector<T> v) { store(p, v); });
    for (int l = 0; l < lanes; ++l) function(l, [](const T* p) { return *p; }, [](T* p, T v) { *p = v; });
}

template <typename T>
void max_pool(const Map<T>& y, const Map<T>& x, const Window& g) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    parallel(y.blocks() * y.channels, x.operations(), [&, I = x.lanes](int task) {
        const int b = task / y.channels, c = task % y.channels;
        const T* in = x.cell(b, c, 0);
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) {
                T* out = y.cell(b, c, h) + std::ptrdiff_t(w) * I;
                cell_lanes<T>(I, [&](int l, const auto& read, const auto& put) {
                    auto best = decltype(read(in)){} + lowest;
                    window_cells(g, x.height, x.width, h, w,
                                 [&](int i, int j) { best = larger(best, read(in + i * x.row() + j * I + l)); });
                    put(out + l, best);
                });
            }
    });
}

// The first input in row-major order that equals the output wins; NaN, which is the largest, equals NaN. With `relu`, x
// is a ReLU's output, and what goes back goes on through it.
template <typename T>
void max_pool_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& x, const Map<T>& y, const Window& g,
                       bool relu) {
    const bool once = g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w;  // no input lies under two windows
    parallel(y.blocks() * y.channels, x.operations(), [&, I = x.lanes](int task) {
        const int b = task / y.channels, c = task % y.channels;
        const T* in = x.cell(b, c, 0);
        T* back = dx.cell(b, c, 0);
        const bool covered = once && g.stride_h == g.kernel_h && g.stride_w == g.kernel_w && !g.pad_h && !g.pad_w &&
                             x.height == y.height * g.kernel_h && x.width == y.width * g.kernel_w;
        if (!covered)
            for (int h = 0; h < dx.height; ++h) std::fill_n(dx.cell(b, c, h), dx.used(), T(0));
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) {
                const T* best = y.cell(b, c, h) + std::ptrdiff_t(w) * I;
                const T* up = dy.cell(b, c, h) + std::ptrdiff_t(w) * I;
                cell_lanes<T>(I, [&](int l, const auto& read, const auto& put) {
                    using V = decltype(read(in));
                    const V m = read(best + l);
                    V left = read(up + l);
                    if (relu) left = m <= T(0) ? V{} : left;
                    window_cells(g, x.height, x.width, h, w, [&](int i, int j) {
                        const V own = read(in + i * x.row() + j * I + l);
                        const auto won = (own == m) | (own != own);
                        T* const to = back + i * dx.row() + j * I + l;
                        const V part = won ? left : V{};
                        put(to, once ? part : read(to) + part);
                        left = won ? V{} : left;
                    });
                });
            }
    });
}

// Cells of a window that count in the mean: all, or those inside the map.
inline int counted(const Window& g, int height, int width, int h, int w, bool all) {
    int count = 0;
    window_cells(g, height, width, h, w, [&](int, int) { ++count; });
    return all ? g.kernel_h * g.kernel_w : count;
}

template <typename T>
void avg_pool(const Map<T>& y, const Map<T>& x, const Window& g, bool all) {
    parallel(y.blocks() * y.channels, x.operations(), [&, I = x.lanes](int task) {
        const int b = task / y.channels, c = task % y.channels;
        const T* in = x.cell(b, c, 0);
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) {
                T* out = y.cell(b, c, h) + std::ptrdiff_t(w) * I;
                const T part = T(1) / T(counted(g, x.height, x.width, h, w, all));
                for (int l = 0; l < I; ++l) {
                    T sum = 0;
                    window_cells(g, x.height, x.width, h, w, [&](int i, int j) { sum += in[i * x.row() + j * I + l]; });
                    out[l] = sum * part;
                }
            }
    });
}

template <typename T>
void avg_pool_backward(const Map<T>& dx, const Map<T>& dy, const Window& g, bool all) {
    parallel(dy.blocks() * dy.channels, dx.operations(), [&, I = dx.lanes](int task) {
        const int b = task / dy.channels, c = task % dy.channels;
        T* back = dx.cell(b, c, 0);
        for (int h = 0; h < dx.height; ++h) std::fill_n(dx.cell(b, c, h), dx.used(), T(0));
        for (int h = 0; h < dy.height; ++h)
            for (int w = 0; w < dy.width; ++w) {
                const T* up = dy.cell(b, c, h) + std::ptrdiff_t(w) * I;
                const T part = T(1) / T(counted(g, dx.height, dx.width, h, w, all));
                window_cells(g, dx.height, dx.width, h, w, [&](int i, int j) {
                    for (int l = 0; l < I; ++l) back[i * dx.row() + j * I + l] += up[l] * part;
                });
            }
    });
}

// ---- sums of whole maps

// y (N, C) plain: the mean of each map.
template <typename T>
void global_mean(const Map<T>& y, const Map<T>& x) {
    const T part = T(1) / T(x.height * x.width);
    parallel(x.blocks() * x.channels, x.operations(), [&, I = x.lanes](int task) {
        const int b = task / x.channels, c = task % x.channels;
        T sums[kWidth<T>] = {};
        for (int h = 0; h < x.height; ++h) {
            const T* row = x.cell(b, c, h);
            for (int w = 0; w < x.width; ++w)
                for (int l = 0; l < I; ++l) sums[l] += row[w * I + l];
        }
        for (int l = 0; l < x.alive(b); ++l) *y.cell(b * I + l, c, 0) = sums[l] * part;
    });
}

template <typename T>
void global_mean_backward(const Map<T>& dx, const Map<T>& dy) {
    const T part = T(1) / T(dx.height * dx.width);
    parallel(dx.blocks() * dx.channels, dx.operations(), [&, I = dx.lanes](int task) {
        const int b = task / dx.channels, c = task % dx.channels;
        T up[kWidth<T>] = {};
        for (int l = 0; l < dx.alive(b); ++l) up[l] = *dy.cell(b * I + l, c, 0) * part;
        for (int h = 0; h < dx.height; ++h) {
            T* row = dx.cell(b, c, h);
            for (int w = 0; w < dx.width; ++w)
                for (int l = 0; l < I; ++l) row[w * I + l] = up[l];
        }
    });
}

// sums[l] = Σ over the vector's columns of sample l's numbers
template <typename T>
void sum_samples(T* sums, Vector<T> v, int samples) {
    T lanes[kWidth<T>];
    store(lanes, v);
    for (int l = 0; l < samples; ++l) {
        sums[l] = 0;
        for (int i = l; i < kWidth<T>; i += samples) sums[l] += lanes[i];
    }
}

// Each channel's sum over positions, of all samples (C) or sample by sample (N, C).
template <typename T>
void channel_sums(T* sums, const Map<T>& dy, bool by_sample) {
    parallel(dy.channels, dy.operations(), [&, I = dy.lanes](int c) {
        double all = 0;
        for (int b = 0; b < dy.blocks(); ++b) {
            Vector<T> sum = {};
            for (int h = 0; h < dy.height; ++h) {
                const T* row = dy.cell(b, c, h);
                std::ptrdiff_t i = 0;
                for (; i + kWidth<T> <= dy.used(); i += kWidth<T>) sum += load(row + i);
                if (i < dy.used()) sum += load_part(row + i, int(dy.used() - i));
            }
            T own[kWidth<T>];
            sum_samples(own, sum, I);
            for (int l = 0; l < dy.alive(b); ++l) {
                all += own[l];
                if (by_sample) sums[(std::ptrdiff_t(b) * I + l) * dy.channels + c] = own[l];
            }
        }
        if (!by_sample) sums[c] = T(all);
    });
}

}  // namespace
}  // namespace sharedgrad
