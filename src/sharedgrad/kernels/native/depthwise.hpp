// Depthwise convolution at stride 1, each channel with a kernel of its own. A channel whose margins are narrower than
// its windows reach, as in a plain array, is first copied to where it stays in the first-level cache.
#pragma once

#include "conv.hpp"

namespace sharedgrad {
namespace {

using DepthwiseMemory = Owner<kCells>;

constexpr int kDepthwiseTaps = 49;    // at most
constexpr int kDepthwiseVectors = 4;  // of outputs at a time
constexpr int kCopies = 4;            // of channels: what was written just now is slow to read in other vectors

template <typename T>
bool depthwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    return g.groups == big.channels && small.channels == big.channels && g.stride_h * g.stride_w == 1 &&
           g.dilation_h * g.dilation_w == 1 && g.kernel_h * g.kernel_w <= kDepthwiseTaps;
}

// The channels of a map, with margins as wide as windows reach.
template <typename T>
struct Channels {
    const Map<T>& map;
    int top, left, rows, columns;  // cells that windows see, the first of which is so far from the map's first
    std::ptrdiff_t row = map.row(), size = 0;
    T* copies = nullptr;  // of some channels, where the map's own margins are too narrow, or nothing is behind it

    Channels(const Map<T>& map, int top, int left, int rows, int columns)
        : map(map), top(top), left(left), rows(rows), columns(columns) {
        if (top <= map.top && left <= map.left && rows - top <= map.height + map.bottom &&
            columns - left <= map.width + map.right && !(map.lanes == 1 && map.bare()))
            return;
        row = std::ptrdiff_t(columns) * map.lanes;
        size = rows * row + kWidth<T>;
        copies = DepthwiseMemory::memory<T, kCells>(kCopies * size);
        std::fill_n(copies, kCopies * size, T(0));
    }

    // The first cell of a channel's first window; rows lie `row` from each other, and a vector may be read behind them.
    const T* at(int block, int c, int place) const {
        if (!copies) return map.cell(block, c, 0) - top * row - std::ptrdiff_t(left) * map.lanes;
        const int first = std::max(0, -left), count = std::min(map.width, columns - left) - first;
        for (int h = std::max(0, -top); h < std::min(map.height, rows - top) && count > 0; ++h) {
            const T* const from = map.cell(block, c, h) + std::ptrdiff_t(first) * map.lanes;
            T* const to = copies + place * size + (h + top) * row + std::ptrdiff_t(first + left) * map.lanes;
            const std::ptrdiff_t numbers = std::ptrdiff_t(count) * map.lanes;
            std::ptrdiff_t i = 0;
            for (; i + kWidth<T> <= numbers; i += kWidth<T>) store(to + i, load(from + i));
            if (i < numbers) store(to + i, load_part(from + i, int(numbers - i)));  // zeros up to where the next row is
        }
        return copies + place * size;
    }

    // function(block, channel, cells) for numbers `begin` to `end`, which `place` says the block and the channel of
    template <typename Place, typename Function>
    void each(int begin, int end, const Place& place, const Function& function) const {
        for (int n; begin < end; begin += n) {
            n = std::min(kCopies, end - begin);
            const T* cells[kCopies];
            for (int i = 0; i < n; ++i) cells[i] = at(place(begin + i).first, place(begin + i).second, i);
            for (int i = 0; i < n; ++i) function(place(begin + i).first, place(begin + i).second, cells[i]);
        }
    }
};

// Where a kernel's cells lie in the rows of a channel.
template <typename T>
struct DepthwiseTaps {
    int count;
    std::ptrdiff_t taps[kDepthwiseTaps];
    DepthwiseTaps(const Channels<T>& x, const Window& g) : count(g.kernel_h * g.kernel_w) {
        for (int k = 0; k < count; ++k) taps[k] = k / g.kernel_w * x.row + std::ptrdiff_t(k % g.kernel_w) * x.map.lanes;
    }
};

// What is the same for all vectors of outputs of one channel.
template <typename T>
struct DepthwisePass {
    const DepthwiseTaps<T>& taps;
    const T* weights;  // (taps)
    Vector<T> first;
    bool add, relu;

    // C vectors of outputs, of the last so many numbers.
    template <int C>
    void run(T* to, const T* from, const T* gate, int last) const {
        constexpr int V = kWidth<T>;
        Vector<T> sum[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[v] = first;
        for (int t = 0; t < taps.count; ++t) {
            const T* const cells = from + taps.taps[t];
            const Vector<T> weight = splat(weights[t]);
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[v] += weight * load(cells + v * V);
        }
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
            const int n = v + 1 < C ? V : last;
            const auto read = [n](const T* p) { return load_part(p, n); };
            store_part(to + v * V, finished<T>(sum[v], add, relu, to + v * V, gate ? gate + v * V : nullptr, read), n);
        }
    }

    // A row of outputs. Where `over` says so, what its last vector has too much may be written, too.
    void row(T* to, const T* from, const T* gate, std::ptrdiff_t numbers, bool over) const {
        constexpr int V = kWidth<T>;
        for (std::ptrdiff_t left = numbers; left > 0; left -= kDepthwiseVectors * V) {
            const int count = int(std::min<std::ptrdiff_t>((left + V - 1) / V, kDepthwiseVectors));
            const int last = over ? V : int(std::min<std::ptrdiff_t>(left - (count - 1) * V, V));
            if (count == 4)
                run<4>(to, from, gate, last);
            else if (count == 3)
                run<3>(to, from, gate, last);
            else if (count == 2)
                run<2>(to, from, gate, last);
            else
                run<1>(to, from, gate, last);
            to += kDepthwiseVectors * V, from += kDepthwiseVectors * V;
            if (gate) gate += kDepthwiseVectors * V;
        }
    }
};

// out[h, w] = Σ kernel[i, j] · in[h − top + i, w − left + j], the kernel perhaps turned around, + bias or what out
// holds; then perhaps ReLU, or zero where `through`, the output of a ReLU, is.
template <typename T>
void depthwise_correlate(const Map<T>& out, const Map<T>& in, int top, int left, const T* w, bool turned, const T* bias,
                         const Window& g, bool add, bool relu, const Map<T>* through) {
    const int cells = g.kernel_h * g.kernel_w;
    const EvenRanges tasks(out.blocks() * out.channels, 2 * kCopies);
    parallel(tasks.count, out.operations() * cells / 8, [&](int task) {
        const Channels<T> all(in, top, left, out.height + g.kernel_h - 1, out.width + g.kernel_w - 1);
        const DepthwiseTaps<T> taps(all, g);
        const auto place = [&](int i) { return std::pair(i / out.channels, i % out.channels); };
        all.each(tasks.begin(task), tasks.begin(task + 1), place, [&](int b, int c, const T* from) {
            T weights[kDepthwiseTaps];
            for (int k = 0; k < cells; ++k) weights[k] = w[c * cells + (turned ? cells - 1 - k : k)];
            const DepthwisePass<T> pass{taps, weights, splat(bias ? bias[c] : T(0)), add, relu};
            const std::ptrdiff_t row = out.row(), used = out.used();
            const bool together = !add && !through && row == used;  // then the next row mends what is written beyond
            T* to = out.cell(b, c, 0);
            const T* gate = through ? through->cell(b, c, 0) : nullptr;
            for (int h = 0; h < out.height; ++h, to += row, from += all.row) {
                pass.row(to, from, gate, used, together && (out.height - 1 - h) * row >= kWidth<T>);
                if (gate) gate += through->row();
            }
        });
    });
}

template <typename T>
void depthwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    depthwise_correlate<T>(y, x, g.pad_h, g.pad_w, w, false, bias, g, false, relu, nullptr);
}

template <typename T>
void depthwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    depthwise_correlate<T>(dx, dy, g.kernel_h - 1 - g.pad_h, g.kernel_w - 1 - g.pad_w, w, true, nullptr, g, add, false,
                           through);
}

template <typename T>
void depthwise_kernel_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const int cells = g.kernel_h * g.kernel_w, vectors = ceil_div(int(dy.used()), V);
    const EvenRanges tiles(cells, kMostTaps);
    parallel(dy.channels, dy.operations() * cells / 8, [&](int c) {
        const Channels<T> all(x, g.pad_h, g.pad_w, dy.height + g.kernel_h - 1, dy.width + g.kernel_w - 1);
        const DepthwiseTaps<T> taps(all, g);
        alignas(64) T sums[kDepthwiseTaps * V];
        const auto place = [c](int b) { return std::pair(b, c); };
        all.each(0, dy.blocks(), place, [&](int b, int, const T* channel) {
            for (int t = 0; t < tiles.count; ++t)
                outer<T>(1, tiles.size(t),
                         {sums + tiles.begin(t) * V, 0, dy.cell(b, c, 0), 0, dy.row(), channel, V, all.row,
                          taps.taps + tiles.begin(t), dy.height, vectors, int(dy.used()) - (vectors - 1) * V, b > 0});
        });
        for (int k = 0; k < cells; ++k) dw[c * cells + k] = total<T>(load(sums + k * V));
    });
}

}  // namespace
}  // namespace sharedgrad
