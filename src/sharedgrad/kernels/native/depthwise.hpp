// Depthwise convolution, each channel with a kernel of its own. Where a channel does not lie as its windows want it, as
// in a plain array, which has no margins, it is first copied to where it stays in the first-level cache.
#pragma once

#include "conv.hpp"

namespace sharedgrad {
namespace {

using DepthwiseMemory = Owner<kCells, kSums>;

constexpr int kDepthwiseTaps = 49;    // at most
constexpr int kDepthwiseVectors = 4;  // of outputs at a time
constexpr int kCopies = 4;            // of channels: what was written just now is slow to read in other vectors

template <typename T>
bool depthwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    const auto fits = [](int outputs, int stride, int kernel, int dilation) {
        return (outputs - 1LL) * stride + (kernel - 1LL) * dilation < kLargest;
    };
    return g.groups == big.channels && small.channels == big.channels && g.kernel_h * g.kernel_w <= kDepthwiseTaps &&
           fits(small.height, g.stride_h, g.kernel_h, g.dilation_h) &&
           fits(small.width, g.stride_w, g.kernel_w, g.dilation_w);
}

template <typename T, int Step>
void take_each(T* to, const T* from, int count, int step) {
    for (int i = 0; i < count; ++i) to[i] = from[std::ptrdiff_t(i) * (Step ? Step : step)];
}

// How a channel lies in rows that windows see: cell (h, w) is in row h · spread_h + top and column w · spread_w + left;
// the columns are apart by their remainder, if they are split.
struct Field {
    int top, left, rows, columns, spread_h = 1, spread_w = 1, split = 1;
};

// The channels of a map as a field.
template <typename T>
struct Channels {
    const Map<T>& map;
    Field f;
    int phase = ceil_div(f.columns, f.split);  // columns of one remainder
    int first_row = first_of(f.top, f.spread_h), end_row = end_of(map.height, f.rows, f.top, f.spread_h);
    int first = first_of(f.left, f.spread_w), count = end_of(map.width, f.columns, f.left, f.spread_w) - first;
    std::ptrdiff_t row = map.row(), size = 0;
    T* copies = nullptr;  // of some channels, where they do not lie so already, or nothing is behind them

    template <Slot slot>
    static Channels in(const Map<T>& map, const Field& f) {
        Channels all{map, f};
        const bool moved = f.spread_h * f.spread_w * f.split > 1;
        if (!moved && f.top <= map.top && f.left <= map.left && f.rows - f.top <= map.height + map.bottom &&
            f.columns - f.left <= map.width + map.right && !map.plain())
            return all;
        all.row = std::ptrdiff_t(all.phase) * f.split * map.lanes;
        all.size = f.rows * all.row + kWidth<T>;
        all.copies = DepthwiseMemory::memory<T, slot>(kCopies * all.size);
        std::fill_n(all.copies, kCopies * all.size, T(0));
        return all;
    }

    // The first cells that lie in the field, and those behind the last.
    static int first_of(int before, int spread) { return before < 0 ? ceil_div(-before, spread) : 0; }
    static int end_of(int cells, int size, int before, int spread) {
        return std::min(cells, size > before ? (size - before - 1) / spread + 1 : 0);
    }

    // Where a column lies in its row.
    std::ptrdiff_t column(int q) const { return (q % f.split * std::ptrdiff_t(phase) + q / f.split) * map.lanes; }

    // The first cell of a channel's first window; rows lie `row` from each other, and a vector may be read behind them.
    const T* at(int block, int c, int place) const {
        if (!copies) return map.cell(block, c, 0) - f.top * row - std::ptrdiff_t(f.left) * map.lanes;
        T* const copy = copies + place * size;
        for (int h = first_row; h < end_row; ++h)
            copy_row(copy + (h * f.spread_h + f.top) * row, map.cell(block, c, h) + std::ptrdiff_t(first) * map.lanes,
                     first * f.spread_w + f.left, count);
        return copy;
    }

    // Some cells to where they lie in a row from column q on.
    void copy_row(T* to, const T* from, int q, int count) const {
        if (f.spread_w * f.split == 1) {
            const std::ptrdiff_t numbers = std::ptrdiff_t(count) * map.lanes;
            std::ptrdiff_t i = 0;
            for (to += std::ptrdiff_t(q) * map.lanes; i + kWidth<T> <= numbers; i += kWidth<T>)
                store(to + i, load(from + i));
            if (i < numbers) store(to + i, load_part(from + i, int(numbers - i)));  // zeros up to where the next row is
        } else if (f.split > 1 && map.lanes == 1) {
            for (int i = 0; i < std::min(f.split, count); ++i)
                (f.split == 2 ? take_each<T, 2> : take_each<T, 0>)(to + column(q + i), from + i,
                                                                   ceil_div(count - i, f.split), f.split);
        } else {
            for (int i = 0; i < count; ++i, from += map.lanes)
                std::copy_n(from, map.lanes, to + column(q + i * f.spread_w));
        }
    }

    // function(block, channel, cells) for numbers `begin` to `end`, which `place` says the block and the channel of
    template <typename Place, typename Function>
    void each(int begin, int end, const Place& place, const Function& function) const {
        for (int n; begin < end; begin += n) {
            n = std::min(kCopies, end - begin);
            const T* cells[kCopies];
            std::pair<int, int> at_place[kCopies];
            for (int i = 0; i < n; ++i) {
                at_place[i] = place(begin + i);
                cells[i] = at(at_place[i].first, at_place[i].second, i);
            }
            for (int i = 0; i < n; ++i) function(at_place[i].first, at_place[i].second, cells[i]);
        }
    }
};

// How windows slide over a field.
template <typename T>
struct DepthwiseTaps {
    int count;
    std::ptrdiff_t row, step;  // from window to window, and from vector to vector of them
    std::ptrdiff_t taps[kDepthwiseTaps];
    DepthwiseTaps(const Channels<T>& x, const Window& g, int stride_h, int stride_w)
        : count(g.kernel_h * g.kernel_w),
          row(stride_h * x.row),
          step(std::ptrdiff_t(x.f.split > 1 ? 1 : stride_w) * kWidth<T>) {
        for (int k = 0; k < count; ++k)
            taps[k] = k / g.kernel_w * g.dilation_h * x.row + x.column(k % g.kernel_w * g.dilation_w);
    }
};

inline int reach(int outputs, int stride, int kernel, int dilation) {
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

// What windows with outputs like those see of a map.
template <typename T>
Field seen_by(const Map<T>& y, const Window& g) {
    return {g.pad_h,
            g.pad_w,
            reach(y.height, g.stride_h, g.kernel_h, g.dilation_h),
            reach(y.width, g.stride_w, g.kernel_w, g.dilation_w),
            1,
            1,
            y.lanes < kWidth<T> ? g.stride_w : 1};
}

// What is the same for all vectors of outputs of one channel.
template <typename T>
struct DepthwisePass {
    const DepthwiseTaps<T>& in;
    const T* weights;  // (taps)
    Vector<T> first;
    bool add, relu;

    // Where vectors of outputs are, side by side or one below the other, and what they read.
    struct Places {
        T* to;
        const T *from, *gate;
        std::ptrdiff_t to_step, from_step, gate_step;
    };

    // C vectors of so many numbers each, and of the last so many.
    template <int C, bool Beside>
    void run(const Places& at, int each, int last) const {
        constexpr int V = kWidth<T>;
        const std::ptrdiff_t from_step = Beside ? V : at.from_step, to_step = Beside ? V : at.to_step,
                             gate_step = Beside ? V : at.gate_step;
        Vector<T> sum[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[v] = first;
        for (int t = 0; t < in.count; ++t) {
            const Vector<T> weight = splat(weights[t]);
            const T* const cells = at.from + in.taps[t];
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[v] += weight * load(cells + v * from_step);
        }
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
            const int n = v + 1 < C ? each : last;
            const auto read = [n](const T* p) { return n == V ? load(p) : load_part(p, n); };
            T* const to = at.to + v * to_step;
            store_part(to, finished<T>(sum[v], add, relu, to, at.gate ? at.gate + v * gate_step : nullptr, read), n);
        }
    }

    template <bool Beside>
    void run(Places at, int count, int each, int last) const {
        for (; count > kDepthwiseVectors; count -= kDepthwiseVectors) {
            run<kDepthwiseVectors, Beside>(at, each, each);
            at.to += kDepthwiseVectors * at.to_step, at.from += kDepthwiseVectors * at.from_step;
            if (at.gate) at.gate += kDepthwiseVectors * at.gate_step;
        }
        if (count == 4)
            run<4, Beside>(at, each, last);
        else if (count == 3)
            run<3, Beside>(at, each, last);
        else if (count == 2)
            run<2, Beside>(at, each, last);
        else
            run<1, Beside>(at, each, last);
    }

    // A channel of outputs, row by row, or where rows are one vector column by column. Where only the outputs are in
    // `to`, what a row has too much in its last vector is mended by the next, and by the next channel if one follows.
    void channel(T* to, std::ptrdiff_t to_row, const T* from, const T* gate, std::ptrdiff_t gate_row, int rows,
                 std::ptrdiff_t numbers, bool follows) const {
        constexpr int V = kWidth<T>;
        const int vectors = int((numbers + V - 1) / V), last = int(numbers - (vectors - 1) * std::ptrdiff_t(V));
        int over = 0;  // rows that may
        if (!add && !gate && to_row == numbers)
            over = follows && rows * to_row >= V ? rows : std::max(0, rows - int((V + to_row - 1) / to_row));
        if (vectors == 1) {
            if (over) run<false>({to, from, gate, to_row, in.row, gate_row}, over, V, V);
            if (over == rows) return;
            return run<false>({to + over * to_row, from + over * in.row, gate, to_row, in.row, gate_row}, rows - over,
                              last, last);
        }
        for (int h = 0; h < rows; ++h, to += to_row, from += in.row) {
            const Places at{to, from, gate, V, in.step, V};
            const int n = h < over ? V : last;
            in.step == V ? run<true>(at, vectors, V, n) : run<false>(at, vectors, V, n);
            if (gate) gate += gate_row;
        }
    }
};

// out[h, w] = Σ kernel[i, j] · field[h · stride + i · dilation, w · stride + j · dilation], the kernel perhaps turned
// around, + bias or what out holds; then perhaps ReLU, or zero where `through`, the output of a ReLU, is.
template <typename T>
void depthwise_correlate(const Map<T>& out, const Map<T>& in, const Field& field, int stride_h, int stride_w,
                         const T* w, bool turned, const T* bias, const Window& g, bool add, bool relu,
                         const Map<T>* through) {
    const int cells = g.kernel_h * g.kernel_w;
    const int count = out.blocks() * out.channels;
    const EvenRanges tasks(count, std::max(2 * kCopies, ceil_div(count, 4 * kTasks)));
    parallel(tasks.count, out.operations() * cells / 8, [&](int task) {
        const auto all = Channels<T>::template in<kCells>(in, field);
        const DepthwiseTaps<T> taps(all, g, stride_h, stride_w);
        const auto place = [&](int i) { return std::pair(i / out.channels, i % out.channels); };
        all.each(tasks.begin(task), tasks.begin(task + 1), place, [&](int b, int c, const T* from) {
            T weights[kDepthwiseTaps];
            for (int k = 0; k < cells; ++k) weights[k] = w[c * cells + (turned ? cells - 1 - k : k)];
            const DepthwisePass<T> pass{taps, weights, splat(bias ? bias[c] : T(0)), add, relu};
            pass.channel(out.cell(b, c, 0), out.row(), from, through ? through->cell(b, c, 0) : nullptr,
                         through ? through->row() : 0, out.height, out.used(),
                         out.plain() && b * out.channels + c + 1 < tasks.begin(task + 1));
        });
    });
}

template <typename T>
void depthwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    depthwise_correlate<T>(y, x, seen_by(y, g), g.stride_h, g.stride_w, w, false, bias, g, false, relu, nullptr);
}

// At stride s cell o of dy is spread to s · o, with zeros between; then it is a correlation at stride 1.
template <typename T>
void depthwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    const int height = (g.kernel_h - 1) * g.dilation_h, width = (g.kernel_w - 1) * g.dilation_w;
    const Field field{height - g.pad_h, width - g.pad_w, dx.height + height, dx.width + width, g.stride_h, g.stride_w};
    depthwise_correlate<T>(dx, dy, field, 1, 1, w, true, nullptr, g, add, false, through);
}

// Rows of dy that do not fill their last vector are copied to some that do, with zeros, and so are those of x.
template <typename T>
void depthwise_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const int cells = g.kernel_h * g.kernel_w, vectors = ceil_div(int(dy.used()), V);
    const EvenRanges tiles(cells, kMostTaps);
    Map<T> whole = dy;
    whole.width = vectors * V / dy.lanes;
    parallel(dy.channels, dy.operations() * cells / 8, [&](int c) {
        const auto all = Channels<T>::template in<kCells>(x, seen_by(whole, g));
        const auto deltas = Channels<T>::template in<kSums>(dy, {0, 0, dy.height, whole.width});
        const DepthwiseTaps<T> taps(all, g, g.stride_h, g.stride_w);
        alignas(64) T sums[kDepthwiseTaps * V];
        Vector<T> bias = {};
        const auto place = [c](int b) { return std::pair(b, c); };
        all.each(0, dy.blocks(), place, [&](int b, int, const T* channel) {
            const T* const delta = dy.used() == vectors * V ? dy.cell(b, c, 0) : deltas.at(b, c, b % kCopies);
            const std::ptrdiff_t row = dy.used() == vectors * V ? dy.row() : deltas.row;
            for (int t = 0; t < tiles.count; ++t)
                outer<T>(1, tiles.size(t),
                         {sums + tiles.begin(t) * V, 0, delta, 0, row, channel, taps.step, taps.row,
                          taps.taps + tiles.begin(t), dy.height, vectors, b > 0});
            for (int h = 0; dbias && h < dy.height; ++h)
                for (int v = 0; v < vectors; ++v) bias += load(delta + h * row + v * V);
        });
        for (int k = 0; k < cells; ++k) dw[c * cells + k] = total<T>(load(sums + k * V));
        if (dbias) dbias[c] = total<T>(bias);
    });
}

}  // namespace
}  // namespace sharedgrad
