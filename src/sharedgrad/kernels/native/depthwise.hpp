// Depthwise convolution of plain arrays (N, C, H, W), each channel with a kernel of its own. A vector is as many
// neighbouring outputs of a row as it has lanes. Each channel is copied to where it stays in the cache, with zeros
// around it; at a stride, columns that neighbouring windows see with the same cell come side by side.
#pragma once

#include <vector>

#include "conv_gradient.hpp"

namespace sharedgrad {
namespace {

using DepthwiseMemory = Owner<kInputs, kSums>;
using DepthwiseSumsMemory = Owner<kParts>;
static_assert(disjoint<DepthwiseMemory, DepthwiseSumsMemory, WindowMemory>());

constexpr int kSideBySide = 8;       // vectors of outputs at a time
constexpr int kChannelsOfTask = 16;  // whose weights' gradients a task sums

template <typename T>
bool depthwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    return g.groups == big.channels && small.channels == big.channels && small.plain();
}

// The cells of a map that outputs see, from (−top, −left) on. Column w is number (w + left) / step of the phase
// (w + left) mod step.
template <typename T>
struct Field {
    static constexpr int V = kWidth<T>;
    const Map<T>& map;
    int step, top = 0, left = 0, rows = 0, columns = 0;
    std::ptrdiff_t phase, row;

    Field(const Map<T>& map, const std::vector<Slide>& slides) : map(map), step(slides[0].view.columns.step) {
        for (const Slide& s : slides) grow(s.view.rows, top), grow(s.view.columns, left);
        rows = top + map.height, columns = left + map.width;
        for (const Slide& s : slides) {
            rows = std::max(rows, top + end(s.view.rows, s.rows));
            columns = std::max(columns, left + end(s.view.columns, s.columns));
        }
        phase = ceil_div(columns, step) + V, row = step * phase;  // whole vectors are read
    }
    static void grow(const Axis& axis, int& before) {
        for (int k = 0; k < axis.count; ++k) before = std::max(before, -axis.shift[k]);
    }
    static int end(const Axis& axis, int outputs) {
        int most = 0;
        for (int k = 0; k < axis.count; ++k) most = std::max(most, (outputs - 1) * axis.step + axis.shift[k] + 1);
        return most;
    }

    T* memory() const {
        T* const to = DepthwiseMemory::memory<T, kInputs>(rows * row);
        std::fill_n(to, rows * row, T(0));
        return to;
    }
    // Where an output with this tap finds its cell, counted from output (0, 0)'s row and number.
    std::ptrdiff_t tap(int down, int across) const {
        return (down + top) * row + (across + left) % step * phase + (across + left) / step;
    }
    void copy(T* to, const T* from) const {
        if (step == 1) {
            to += top * row + left;
            for (int h = 0; h < map.height; ++h, from += map.width, to += row)
                vectors_of<T>(map.width, [&](auto i, auto n, int) { store(to + i, load_part(from + i, n)); });
            return;
        }
        for (int p = 0; p < step; ++p) {
            const int first = ((p - left) % step + step) % step, count = ceil_div(map.width - first, step);
            T* at = to + top * row + p * phase + (first + left) / step;
            for (int h = 0; h < map.height; ++h, at += row) take_each(at, from + h * map.width + first, count, step);
        }
    }
};

// Outputs that see alike, and where.
template <typename T>
struct Sight {
    Slide at;
    std::vector<std::ptrdiff_t> taps;
    std::vector<int> places;  // of the taps in the kernel

    Sight(const Slide& at, const Field<T>& field) : at(at) {
        const auto& [rows, columns] = at.view;
        for (int i = 0; i < rows.count; ++i)
            for (int j = 0; j < columns.count; ++j) {
                taps.push_back(field.tap(rows.shift[i], columns.shift[j]));
                places.push_back(rows.cell[i] * columns.kernel + columns.cell[j]);
            }
    }

    // Those of one map, `end` numbers long.
    void outputs(T* to, const T* end, int width, const Field<T>& field, const T* seen, const T* w, const T* bias,
                 bool relu) const {
        constexpr int V = kWidth<T>, C = kSideBySide;
        T *const memory = DepthwiseMemory::memory<T, kSums>(taps.size() + C * V), *const aside = memory + taps.size();
        for (std::size_t t = 0; t < taps.size(); ++t) memory[t] = w[places[t]];
        const std::ptrdiff_t down = at.view.rows.step * field.row;
        T *outs[C], *wanted[C];
        const T* from[C];
        int lanes[C], n = 0;
        const auto flush = [&] {
            tile_for<Correlate<T>, 1, C>(1,
                                         n)({outs, 0, from, taps.data(), int(taps.size()), memory, bias, false, relu});
            for (int c = 0; c < n; ++c)
                for (int l = 0; outs[c] != wanted[c] && l < lanes[c]; ++l) wanted[c][l * at.across] = outs[c][l];
            n = 0;
        };
        to += at.top * width + at.left;
        for (int h = 0; h < at.rows; ++h, to += at.down * width, seen += down)
            for (int first = 0; first < at.columns; first += V) {
                wanted[n] = to + first * at.across, from[n] = seen + first, lanes[n] = std::min(V, at.columns - first);
                // Beyond the end of a row, numbers of the next one are still to come.
                const bool beyond = lanes[n] < V && (at.down > 1 || wanted[n] + V > end);
                outs[n] = at.across > 1 || beyond ? aside + n * V : wanted[n];
                if (++n == C) flush();
            }
        if (n) flush();
    }
};

// y = x ∗ w + bias, perhaps with ReLU; or back, dx
template <typename T>
void depthwise_outputs(const Map<T>& out, const Map<T>& in, const T* w, const T* bias, const Window& g, bool relu,
                       bool back) {
    std::vector<Slide> slides;
    each_slide(out, in, g, back, [&](const Slide& at) { slides.push_back(at); });
    const Field<T> field(in, slides);
    std::vector<Sight<T>> sights;
    for (const Slide& at : slides) sights.emplace_back(at, field);
    const int maps = out.samples * out.channels, cells = g.kernel_h * g.kernel_w;
    const EvenRanges tasks(maps, ceil_div(maps, 4 * kTasks));
    parallel(tasks.count, out.operations() * cells / 8, [&](int task) {
        T* const seen = field.memory();
        for (int i = tasks.begin(task); i < tasks.begin(task + 1); ++i) {
            field.copy(seen, in.data + i * in.channel());
            T* const to = out.data + i * out.channel();
            const int c = i % out.channels;
            for (const Sight<T>& sight : sights)
                sight.outputs(to, to + out.channel(), out.width, field, seen, w + c * cells, bias ? bias + c : nullptr,
                              relu);
        }
    });
}

template <typename T>
void depthwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    depthwise_outputs(y, x, w, bias, g, relu, false);
}

template <typename T>
void depthwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>*, const Window& g, bool) {
    depthwise_outputs<T>(dx, dy, w, nullptr, g, false, true);
}

// Lanes sum what their outputs give.
template <typename T>
void depthwise_weight_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const Slide all{0, 0, 1, 1, dy.height, dy.width, view_of_inputs(x, g)};
    const Field<T> field(x, {all});
    const Sight<T> sight(all, field);
    const int cells = g.kernel_h * g.kernel_w, vectors = ceil_div(dy.width, V);
    const EvenRanges channels(dy.channels, kChannelsOfTask), tiles(cells, kMostTaps);
    const EvenRanges parts(dy.samples, ceil_div(dy.samples, ceil_div(kTasks, channels.count)));
    const std::ptrdiff_t size = std::ptrdiff_t(dy.channels) * cells;
    T* const sums = DepthwiseSumsMemory::memory<T, kParts>(parts.count * size * V);
    parallel(channels.count * parts.count, dy.operations() * cells / 8, [&](int task) {
        const int range = task % channels.count, part = task / channels.count;
        T *const seen = field.memory(), *const delta = DepthwiseMemory::memory<T, kSums>(dy.height * vectors * V);
        for (int n = parts.begin(part); n < parts.begin(part + 1); ++n)
            for (int c = channels.begin(range); c < channels.begin(range + 1); ++c) {
                const std::ptrdiff_t map = std::ptrdiff_t(n) * dy.channels + c;
                field.copy(seen, x.data + map * x.channel());
                for (int h = 0; h < dy.height; ++h)
                    vectors_of<T>(dy.width,
                                  [&, from = dy.data + map * dy.channel() + h * dy.width](auto i, auto count, int) {
                                      store(delta + h * vectors * V + i, load_part(from + i, count));
                                  });
                T* const own = sums + (part * size + std::ptrdiff_t(c) * cells) * V;
                for (int t = 0; t < tiles.count; ++t)
                    outer<T>(1, tiles.size(t),
                             {own + tiles.begin(t) * V, 0, delta, 0, vectors * V, seen, V, g.stride_h * field.row,
                              sight.taps.data() + tiles.begin(t), dy.height, vectors, n > parts.begin(part)});
            }
    });
    sum_each(sums, parts.count * size);
    add_parts(dw, sums, parts.count, size);
}

}  // namespace
}  // namespace sharedgrad
