// Depthwise convolution, each channel with a kernel of its own. A vector is one cell of as many samples or channels as
// it has lanes: maps that do not lie so, as plain arrays, are copied group by group, some rows at a time, and so are
// those that lack margins or are spread.
#pragma once

#include "conv.hpp"
#include "pack.hpp"

namespace sharedgrad {
namespace {

using DepthwiseMemory = Owner<kCells, kSums>;
using DepthwiseSumsMemory = Owner<kParts>;
static_assert(disjoint<DepthwiseMemory, DepthwiseSumsMemory>());

constexpr int kDepthwiseTaps = 49;               // at most
constexpr int kDepthwiseVectors = 8;             // of outputs at a time
constexpr int kBand = 16 * 1024 / kVectorBytes;  // vectors that are copied at a time

constexpr int kShort = 256;  // numbers of a channel that ends before the processor foresees the next

template <typename T>
bool depthwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    const auto fits = [](int outputs, int stride, int kernel, int dilation) {
        return (outputs - 1LL) * stride + (kernel - 1LL) * dilation < kLargest;
    };
    return g.groups == big.channels && small.channels == big.channels && g.kernel_h * g.kernel_w <= kDepthwiseTaps &&
           fits(small.height, g.stride_h, g.kernel_h, g.dilation_h) &&
           fits(small.width, g.stride_w, g.kernel_w, g.dilation_w);
}

// How the cells of a map lie where windows see them: number i at i · spread + before, of `size`, with zeros around.
struct Extent {
    int before, size, spread = 1;
    int begin() const { return before < 0 ? ceil_div(-before, spread) : 0; }  // the cells that are seen
    int end(int cells) const { return std::min(cells, size > before ? (size - before - 1) / spread + 1 : 0); }
};

// The channels of a map in groups that fill a vector's lanes.
template <typename T>
struct Groups {
    const Map<T>& map;
    int beside = kWidth<T> / map.lanes, count = ceil_div(map.channels, beside);

    bool whole() const { return beside == 1; }  // as they lie
    int first(int group) const { return group * beside; }
    int alive(int group) const { return std::min(beside, map.channels - first(group)); }

    // Some cells of a row, from column w on: to vectors, which lie `step` apart, or back.
    void exchange(T* vectors, std::ptrdiff_t step, int block, int group, int h, int w, int cells, bool into) const {
        constexpr int V = kWidth<T>;
        const int n = alive(group);
        T* const row = map.cell(block, first(group), h) + std::ptrdiff_t(w) * map.lanes;
        if (whole()) {
            for (std::ptrdiff_t i = 0; i < cells; ++i)
                into ? store(vectors + i * step, load(row + i * V)) : store(row + i * V, load(vectors + i * step));
            return;
        }
        T* rows[V];
        const std::ptrdiff_t channel = map.channel();
        for (int j = 0; j < n; ++j) {
            rows[j] = row + j * channel;
            if (channel < kShort) __builtin_prefetch(rows[j] + V * channel);  // the next group
        }
        into ? interleave<T>(vectors, const_cast<const T* const(&)[V]>(rows), cells, n, step)
             : separate<T>(rows, vectors, cells, n);
    }

    // All cells of some rows, one after the other.
    void exchange_rows(T* vectors, int block, int group, int top, int rows, bool into) const {
        constexpr int V = kWidth<T>;
        if (map.bare()) return exchange(vectors, V, block, group, top, 0, rows * map.width, into);  // so they lie
        for (int h = 0; h < rows; ++h)
            exchange(vectors + std::ptrdiff_t(h) * map.width * V, V, block, group, top + h, 0, map.width, into);
    }
};

// A band of rows of a group, as windows see it.
template <typename T>
struct Field {
    Groups<T> groups;
    Extent rows, columns;
    T* copy = nullptr;
    int first = 0, end = 0;  // rows that it holds
    std::ptrdiff_t row = groups.map.row();

    Field(const Map<T>& map, const Extent& rows, const Extent& columns) : groups{map}, rows(rows), columns(columns) {}

    bool lies() const {
        const Map<T>& m = groups.map;
        return groups.whole() && rows.spread * columns.spread == 1 && rows.before <= m.top &&
               columns.before <= m.left && rows.size - rows.before <= m.height + m.bottom &&
               columns.size - columns.before <= m.width + m.right;
    }

    // The same with memory for so many rows at a time, where they do not lie so already.
    Field with_memory(int most) const {
        Field own = *this;
        if (lies()) return own;
        own.row = std::ptrdiff_t(columns.size) * kWidth<T>;
        own.copy = DepthwiseMemory::memory<T, kCells>(most * own.row);
        std::fill_n(own.copy, most * own.row, T(0));
        return own;
    }

    // From row `from` on so many; those that the band before has are kept.
    const T* at(int block, int group, int from, int count) {
        const Map<T>& m = groups.map;
        if (!copy) return m.cell(block, group, from - rows.before) - std::ptrdiff_t(columns.before) * m.lanes;
        const int kept = from > first ? std::max(0, end - from) : 0;
        std::copy_n(copy + (from - first) * row, kept * row, copy);
        first = from, end = from + count;
        const int begin = columns.begin(), n = columns.end(m.width) - begin;
        for (int r = kept; r < count; ++r) {
            const int at = from + r - rows.before, h = at / rows.spread;
            T* const to = copy + r * row;
            if (at < 0 || at % rows.spread || h >= m.height)
                std::fill_n(to, row, T(0));
            else if (n > 0)
                groups.exchange(to + (std::ptrdiff_t(begin) * columns.spread + columns.before) * kWidth<T>,
                                std::ptrdiff_t(columns.spread) * kWidth<T>, block, group, h, begin, n, true);
        }
        return copy;
    }
};

// So many rows of outputs at a time as a band has room for; all of them, where nothing is copied.
template <typename T>
EvenRanges bands(const Field<T>& field, int outputs, int stride, int kernel) {
    const int rows = kBand / std::max(1, field.columns.size);
    return EvenRanges(outputs, field.lies() ? outputs : std::max(1, (rows - kernel) / stride + 1));
}

inline int reach(int outputs, int stride, int kernel, int dilation) {
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

// What windows with such outputs see of a map.
template <typename T>
Field<T> seen_by(const Map<T>& y, const Map<T>& x, const Window& g) {
    return {x,
            {g.pad_h, reach(y.height, g.stride_h, g.kernel_h, g.dilation_h)},
            {g.pad_w, reach(y.width, g.stride_w, g.kernel_w, g.dilation_w)}};
}

// Where the cells of a window lie.
template <typename T>
struct DepthwiseTaps {
    int count;
    std::ptrdiff_t at[kDepthwiseTaps];
    DepthwiseTaps(std::ptrdiff_t row, const Window& g) : count(g.kernel_h * g.kernel_w) {
        for (int k = 0; k < count; ++k)
            at[k] = k / g.kernel_w * g.dilation_h * row + std::ptrdiff_t(k % g.kernel_w) * g.dilation_w * kWidth<T>;
    }
};

// What is the same for all outputs of a group.
template <typename T>
struct DepthwisePass {
    const DepthwiseTaps<T>& taps;
    const T* weights;  // (taps, lanes)
    Vector<T> first;
    std::ptrdiff_t step;  // from window to window
    bool add, relu;

    void row(T* to, const T* from, const T* gate, int count) const {
        step == kWidth<T> ? row<true>(to, from, gate, count) : row<false>(to, from, gate, count);
    }

    // A row of outputs, C vectors at a time.
    template <bool Beside, int C = kDepthwiseVectors>
    void row(T* to, const T* from, const T* gate, int count) const {
        constexpr int V = kWidth<T>;
        const std::ptrdiff_t step = Beside ? V : this->step;
        const bool add = this->add, relu = this->relu, ends = add || relu || gate;  // stores might change the members
        for (; count >= C; count -= C, to += C * V, from += C * step) {
            Vector<T> sum[C];
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[v] = first;
            for (int t = 0; t < taps.count; ++t) {
                const Vector<T> weight = load(weights + t * V);
                const T* const cells = from + taps.at[t];
#pragma GCC unroll 8
                for (int v = 0; v < C; ++v) sum[v] += weight * load(cells + v * step);
            }
            if (ends)
#pragma GCC unroll 8
                for (int v = 0; v < C; ++v)
                    sum[v] = finished<T>(sum[v], add, relu, to + v * V, gate ? gate + v * V : nullptr, load<T>);
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) store(to + v * V, sum[v]);
            if (gate) gate += C * V;
        }
        if constexpr (C > 1)
            if (count) row<Beside, C - 1>(to, from, gate, count);
    }
};

// out[h, w] = Σ kernel[i, j] · field[h · stride + i · dilation, w · stride + j · dilation], the kernel perhaps turned
// around, + bias or what out holds; then perhaps ReLU, or zero where `through`, the output of a ReLU, is.
template <typename T>
void depthwise_correlate(const Map<T>& out, const Field<T>& whole, int stride_h, int stride_w, const T* w, bool turned,
                         const T* bias, const Window& g, bool add, bool relu, const Map<T>* through) {
    constexpr int V = kWidth<T>;
    const int cells = g.kernel_h * g.kernel_w, kernel_rows = reach(1, 1, g.kernel_h, g.dilation_h);
    const Groups<T> groups{out};
    const EvenRanges parts = bands(whole, out.height, stride_h, kernel_rows);
    const int count = out.blocks() * groups.count;
    const EvenRanges tasks(count, ceil_div(count, 4 * kTasks));
    parallel(tasks.count, out.operations() * cells / 8, [&](int task) {
        Field<T> field = whole.with_memory((parts.size(0) - 1) * stride_h + kernel_rows);
        const std::ptrdiff_t row = groups.whole() ? out.row() : std::ptrdiff_t(out.width) * V;
        T* const own = groups.whole() ? nullptr : DepthwiseMemory::memory<T, kSums>(parts.size(0) * row);
        const DepthwiseTaps<T> taps(field.row, g);
        for (int i = tasks.begin(task); i < tasks.begin(task + 1); ++i) {
            const int block = i / groups.count, group = i % groups.count;
            T weights[kDepthwiseTaps * V];
            int channels[V];  // of the lanes
            for (int l = 0; l < V; ++l) channels[l] = std::min(groups.first(group) + l / out.lanes, out.channels - 1);
            for (int k = 0; k < cells; ++k)
                for (int l = 0; l < V; ++l) weights[k * V + l] = w[channels[l] * cells + (turned ? cells - 1 - k : k)];
            const auto first = vector_of_lanes<T>([&](int l) { return bias ? bias[channels[l]] : T(0); });
            const DepthwisePass<T> pass{taps, weights, first, stride_w * V, add, relu};
            for (int part = 0; part < parts.count; ++part) {
                const int top = parts.begin(part), n = parts.size(part);
                const T* const from = field.at(block, group, top * stride_h, (n - 1) * stride_h + kernel_rows);
                if (own && add) groups.exchange_rows(own, block, group, top, n, true);
                for (int h = 0; h < n; ++h) {
                    T* const to = own ? own + h * row : out.cell(block, group, top + h);
                    pass.row(to, from + h * stride_h * field.row,
                             own || !through ? nullptr : through->cell(block, group, top + h), out.width);
                }
                if (own) groups.exchange_rows(own, block, group, top, n, false);
            }
        }
    });
    if (through && !groups.whole()) activate_backward(out, out, *through, kReLU);
}

template <typename T>
void depthwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    depthwise_correlate<T>(y, seen_by(y, x, g), g.stride_h, g.stride_w, w, false, bias, g, false, relu, nullptr);
}

// At stride s cell o of dy is spread to s · o, with zeros between; then it is a correlation at stride 1.
template <typename T>
void depthwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    const int height = (g.kernel_h - 1) * g.dilation_h, width = (g.kernel_w - 1) * g.dilation_w;
    const Field<T> field(dy, {height - g.pad_h, dx.height + height, g.stride_h},
                         {width - g.pad_w, dx.width + width, g.stride_w});
    depthwise_correlate<T>(dx, field, 1, 1, w, true, nullptr, g, add, false, through);
}

// Each lane sums what its sample, or channel, gives.
template <typename T>
void depthwise_weight_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const int cells = g.kernel_h * g.kernel_w, kernel_rows = reach(1, 1, g.kernel_h, g.dilation_h);
    const std::ptrdiff_t size = std::ptrdiff_t(cells) * V;  // of a group's sums
    const Groups<T> groups{dy};
    const Field<T> all = seen_by(dy, x, g);
    const EvenRanges tiles(cells, kMostTaps), rows = bands(all, dy.height, g.stride_h, kernel_rows);
    const EvenRanges parts(dy.blocks(), ceil_div(dy.blocks(), ceil_div(kTasks, groups.count)));
    T* const sums = DepthwiseSumsMemory::memory<T, kParts>(groups.count * parts.count * size);
    parallel(groups.count * parts.count, dy.operations() * cells / 8, [&](int task) {
        const int group = task % groups.count, part = task / groups.count;
        Field<T> field = all.with_memory((rows.size(0) - 1) * g.stride_h + kernel_rows);
        const std::ptrdiff_t row = groups.whole() ? dy.row() : std::ptrdiff_t(dy.width) * V;
        T* const copy = groups.whole() ? nullptr : DepthwiseMemory::memory<T, kSums>(rows.size(0) * row);
        const DepthwiseTaps<T> taps(field.row, g);
        T* const own = sums + task * size;
        std::fill_n(own, size, T(0));
        for (int block = parts.begin(part); block < parts.begin(part + 1); ++block)
            for (int band = 0; band < rows.count; ++band) {
                const int top = rows.begin(band), n = rows.size(band);
                const T* const from = field.at(block, group, top * g.stride_h, (n - 1) * g.stride_h + kernel_rows);
                if (copy) groups.exchange_rows(copy, block, group, top, n, true);
                const T* const delta = copy ? copy : dy.cell(block, group, top);
                for (int t = 0; t < tiles.count; ++t)
                    outer<T>(1, tiles.size(t),
                             {own + tiles.begin(t) * V, 0, delta, 0, row, from, std::ptrdiff_t(g.stride_w) * V,
                              g.stride_h * field.row, taps.at + tiles.begin(t), n, dy.width, true});
            }
    });
    for (int c = 0; c < dy.channels; ++c)
        for (int k = 0; k < cells; ++k) {
            T sum = 0;
            const T* from = sums + c / groups.beside * size + k * V + c % groups.beside * dy.lanes;
            for (int part = 0; part < parts.count; ++part, from += groups.count * size)
                for (int l = 0; l < dy.lanes; ++l) sum += from[l];
            dw[c * cells + k] = sum;
        }
}

}  // namespace
}  // namespace sharedgrad
