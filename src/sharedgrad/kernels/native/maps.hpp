// Everything that goes over maps once, row by row: activations, sums, pooling.
#pragma once

#include <limits>

#include "elementary.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

constexpr std::ptrdiff_t kPiece = 1 << 14;  // numbers worth handing to a thread

// y[i] = f(x[i], …), vector by vector; y may lie where an x lies
template <typename T, typename F, typename... Maps>
void each(const F& f, const Map<T>& y, const Maps&... x) {
    const auto row = [&](std::ptrdiff_t numbers, T* to, const auto*... from) {
        vectors_of<T>(numbers, [&](auto i, auto n, int) { store_part(to + i, f(load_part(from + i, n)...), n); });
    };
    if (!(y.bare() && ... && x.bare())) {
        channels_of(y, double(y.size()), [&](int b, int c) {
            for (int h = 0; h < y.height; ++h) row(y.used(), y.cell(b, c, h), x.cell(b, c, h)...);
        });
        return;
    }
    parallel(int((y.size() + kPiece - 1) / kPiece), double(y.size()), [&](int piece) {  // all is one row
        const std::ptrdiff_t begin = piece * kPiece;
        row(std::min(kPiece, y.size() - begin), y.data + begin, x.data + begin...);
    });
}

// ---- activations

template <typename T>
void activate(const Map<T>& y, const Map<T>& x, int kind) {
    for_kind(kind, [&](auto k) { each([k](Vector<T> v) { return activated<k(), T>(v); }, y, x); });
}

template <typename T>
void activate_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& y, int kind) {
    for_kind(kind,
             [&](auto k) { each([k](Vector<T> up, Vector<T> out) { return through<k(), T>(up, out); }, dx, dy, y); });
}

template <typename T>
void add(const Map<T>& y, const Map<T>& a, const Map<T>& b, int kind) {
    for_kind(kind, [&](auto k) { each([k](Vector<T> p, Vector<T> q) { return activated<k(), T>(p + q); }, y, a, b); });
}

template <typename T>
void multiply(const Map<T>& y, const Map<T>& a, const Map<T>& b) {
    each([](Vector<T> p, Vector<T> q) { return p * q; }, y, a, b);
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
    channels_of(map, double(map.size()), [&](int b, int c) { clear_margins(map, b, c); });
}

// ---- pooling

// The cells of one window that lie inside the map: function(row, column).
template <typename T, typename Function>
void window_cells(const Map<T>& x, const Window& g, int h, int w, const Function& function) {
    const int top = h * g.stride_h - g.pad_h, left = w * g.stride_w - g.pad_w;
    for (int i = std::max(0, top); i < std::min(x.height, top + g.kernel_h); ++i)
        for (int j = std::max(0, left); j < std::min(x.width, left + g.kernel_w); ++j) function(i, j);
}

// y = factor(h, w) · what `join` makes of `first` and all cells of the window
template <typename T, typename Join, typename Factor>
void pool(const Map<T>& y, const Map<T>& x, const Window& g, T first, const Join& join, const Factor& factor) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    channels_of(y, x.operations(), [&](int b, int c) {
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) {
                Vector<T> all = splat(first);
                window_cells(x, g, h, w, [&](int i, int j) { all = join(all, load(x.cell(b, c, i) + j * V)); });
                store(y.cell(b, c, h) + w * V, all * factor(h, w));
            }
    });
}

template <typename T>
void max_pool(const Map<T>& y, const Map<T>& x, const Window& g) {
    const auto join = [](auto a, auto b) { return larger(a, b); };
    pool(y, x, g, -std::numeric_limits<T>::infinity(), join, [](int, int) { return T(1); });
}

// The first input in row-major order that equals the output wins; NaN, which is the largest, equals NaN. With `relu`, x
// is a ReLU's output, and what goes back goes on through it.
template <typename T>
void max_pool_backward(const Map<T>& dx, const Map<T>& dy, const Map<T>& x, const Map<T>& y, const Window& g,
                       bool relu) {
    const bool once = g.stride_h >= g.kernel_h && g.stride_w >= g.kernel_w;  // no input lies under two windows
    constexpr std::ptrdiff_t V = kWidth<T>;
    channels_of(y, x.operations(), [&](int b, int c) {
        const bool covered = once && g.stride_h == g.kernel_h && g.stride_w == g.kernel_w && !g.pad_h && !g.pad_w &&
                             x.height == y.height * g.kernel_h && x.width == y.width * g.kernel_w;
        if (!covered) clear(dx, b, c);
        for (int h = 0; h < y.height; ++h)
            for (int w = 0; w < y.width; ++w) {
                const Vector<T> best = load(y.cell(b, c, h) + w * V);
                Vector<T> left = load(dy.cell(b, c, h) + w * V);
                if (relu) left = relu_gate<T>(left, best);
                window_cells(x, g, h, w, [&](int i, int j) {
                    const Vector<T> own = load(x.cell(b, c, i) + j * V);
                    const auto won = (own == best) | (own != own);
                    T* const to = dx.cell(b, c, i) + j * V;
                    const Vector<T> part = won ? left : Vector<T>{};
                    store(to, once ? part : load(to) + part);
                    left = won ? Vector<T>{} : left;
                });
            }
    });
}

// 1 / the number of a window's cells that count in the mean: all, or those inside the map.
template <typename T>
T mean_factor(const Map<T>& x, const Window& g, int h, int w, bool all) {
    int count = 0;
    window_cells(x, g, h, w, [&](int, int) { ++count; });
    return T(1) / T(all ? g.kernel_h * g.kernel_w : count);
}

template <typename T>
void avg_pool(const Map<T>& y, const Map<T>& x, const Window& g, bool all) {
    const auto join = [](auto a, auto b) { return a + b; };
    pool(y, x, g, T(0), join, [&](int h, int w) { return mean_factor(x, g, h, w, all); });
}

template <typename T>
void avg_pool_backward(const Map<T>& dx, const Map<T>& dy, const Window& g, bool all) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    channels_of(dy, dx.operations(), [&](int b, int c) {
        clear(dx, b, c);
        for (int h = 0; h < dy.height; ++h)
            for (int w = 0; w < dy.width; ++w) {
                const Vector<T> part = load(dy.cell(b, c, h) + w * V) * mean_factor(dx, g, h, w, all);
                window_cells(dx, g, h, w, [&](int i, int j) {
                    T* const to = dx.cell(b, c, i) + j * V;
                    store(to, load(to) + part);
                });
            }
    });
}

// ---- sums of whole maps

// What one task takes where channels have numbers of their own: a channel of all samples, or a vector of channels where
// these are the lanes.
template <typename T>
struct Group {
    static constexpr int V = kWidth<T>;
    const Map<T>& map;
    int index;

    static int count(const Map<T>& map) { return map.by_channel() ? map.blocks_of_sample() : map.channels; }

    int first() const { return map.by_channel() ? index * map.lanes : index; }  // of its channels
    int channels() const { return map.by_channel() ? std::min(map.lanes, map.lane_channels - first()) : 1; }
    int of_lane(int l) const { return map.by_channel() ? l : 0; }  // which of them
    int blocks() const { return map.by_channel() ? map.blocks() / map.blocks_of_sample() : map.blocks(); }
    int block(int i) const { return map.by_channel() ? i * map.blocks_of_sample() + index : i; }
    T* row(const Map<T>& m, int i, int h) const { return m.cell(block(i), map.by_channel() ? 0 : index, h); }
    int alive(int i) const { return map.alive(block(i)); }

    // Ones in the lanes that hold samples. Padding must not enter a sum, and what flows back into it must stay zero.
    Vector<T> mask(int i) const {
        return vector_of_lanes<T>([&](int l) { return T(l < alive(i)); });
    }
    // In each lane the number of its channel: of (C), and of numbers for this group's own channels.
    Vector<T> per_lane(const T* numbers) const {
        return vector_of_lanes<T>([&](int l) { return numbers[first() + std::min(of_lane(l), channels() - 1)]; });
    }
    Vector<T> own_per_lane(const T* numbers) const {
        return vector_of_lanes<T>([&](int l) { return numbers[of_lane(l)]; });
    }
    // What the lanes of v add to each of its channels.
    void add(double* sums, Vector<T> v) const {
        if (!map.by_channel()) sums[0] += total<T>(v);
        for (int l = 0; map.by_channel() && l < V; ++l) sums[of_lane(l)] += v[l];
    }
};

// The sum over one channel's positions, sample by sample.
template <typename T>
Vector<T> sample_sums(const Map<T>& x, int b, int c) {
    Vector<T> sum = {};
    for (int h = 0; h < x.height; ++h)
        vectors_of<T>(x.used(), [&, row = x.cell(b, c, h)](auto i, auto n, int) { sum += load_part(row + i, n); });
    return sum;
}

// Each channel's sum over positions, of all samples (C) or sample by sample (N, C).
template <typename T>
void channel_sums(T* sums, const Map<T>& dy, bool by_sample) {
    parallel(Group<T>::count(dy), dy.operations(), [&](int task) {
        const Group<T> group{dy, task};
        double all[kWidth<T>] = {};
        for (int i = 0; i < group.blocks(); ++i) {
            const int b = group.block(i);
            const Vector<T> own = sample_sums(dy, b, dy.by_channel() ? 0 : task);
            for (int l = 0; l < dy.alive(b); ++l) {
                all[group.of_lane(l)] += own[l];
                if (by_sample) sums[dy.number(b, task, l)] = own[l];
            }
        }
        for (int c = 0; c < group.channels() && !by_sample; ++c) sums[group.first() + c] = T(all[c]);
    });
}

// y (N, C) plain: the mean of each map.
template <typename T>
void global_mean(const Map<T>& y, const Map<T>& x) {
    const T part = T(1) / T(x.height * x.width);
    channels_of(x, x.operations(), [&](int b, int c) {
        const Vector<T> sums = sample_sums(x, b, c);
        for (int l = 0; l < x.alive(b); ++l) y.data[x.number(b, c, l)] = sums[l] * part;
    });
}

template <typename T>
void global_mean_backward(const Map<T>& dx, const Map<T>& dy) {
    const T part = T(1) / T(dx.height * dx.width);
    channels_of(dx, dx.operations(), [&](int b, int c) {
        const auto up =
            vector_of_lanes<T>([&](int l) { return l < dx.alive(b) ? dy.data[dx.number(b, c, l)] * part : T(0); });
        for (int h = 0; h < dx.height; ++h)
            for (int w = 0; w < dx.width; ++w) store(dx.cell(b, c, h) + std::ptrdiff_t(w) * kWidth<T>, up);
    });
}

}  // namespace
}  // namespace sharedgrad
