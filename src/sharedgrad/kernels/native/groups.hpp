// Convolutions lane by lane: depthwise ones, whatever the lanes are; and in groups by channel, where each filter meets
// in its own lane the channels of its group.
//
//   y[f,o]  = Σ_i Σ_t w[f,i,t] · x[c(f,i),o·stride + t]     c(f,i): the i-th channel of f's group
//   dx[c,o] = Σ_i Σ_t w[f(c,i),·,t] · dy[f(c,i),o/stride + t]   likewise the i-th filter of c's group
//   dw[f,i,t] = Σ_o dy[f,o] · x[c(f,i),o·stride + t]
//
// Depthwise, both maps have a channel in the same lane; else the other map's are gathered.
#pragma once

#include "by_channel.hpp"

namespace sharedgrad {
namespace {

using GroupsMemory = Owner<kWeights, kInputs, kSums>;
static_assert(disjoint<GroupsMemory, WindowMemory>());

// Whether there is a kernel for each channel, or the lanes are channels.
template <typename T>
bool lane_by_lane(const Map<T>& small, const Map<T>& big, const Window& g) {
    const bool depthwise = g.groups == big.channels && small.channels == big.channels && !small.plain();
    return g.groups > 1 && (small.by_channel() || depthwise);
}

// What the lanes of one map see of another. A vector is one of a sample's blocks, by channel, or a channel.
template <typename T>
struct GroupLanes {
    static constexpr int V = kWidth<T>;
    const Map<T>&own, &other;
    const Window& g;
    bool back;  // whether the own channels are the inputs', the other ones the outputs'
    int mine = own.logical().channels / g.groups, theirs = other.logical().channels / g.groups;  // of a group
    int cells = g.kernel_h * g.kernel_w;
    int vectors = own.by_channel() ? own.blocks_of_sample() : own.channels;

    T* cell(const Map<T>& map, int n, int v, int h) const {
        return map.by_channel() ? map.cell(n * vectors + v, 0, h) : map.cell(n, v, h);
    }
    int alive(int v) const { return own.by_channel() ? std::min(V, own.lane_channels - v * V) : 1; }
    int channel(int v, int l) const { return own.by_channel() ? v * V + l : v; }
    int partner(int c, int i) const { return c / mine * theirs + i; }
    // Where the kernel lies in w (F, C/groups, *K) with which channel c meets its i-th partner.
    std::ptrdiff_t kernel(int c, int i) const {
        return (back ? std::ptrdiff_t(partner(c, i)) * mine + c % mine : std::ptrdiff_t(c) * theirs + i) * cells;
    }

    // These kernels of a vector: (cells, lanes).
    void kernels(T* to, const T* w, int v, int i) const {
        const T* rows[V];
        for (int l = 0; l < alive(v); ++l) rows[l] = w + kernel(channel(v, l), i);
        if (own.by_channel()) return interleave(to, rows, cells, alive(v));
        for (int k = 0; k < cells; ++k) store(to + k * V, splat(rows[0][k]));
    }
    // In each lane its channel's number, where there are any.
    Vector<T> of_lanes(const T* numbers, int v) const {
        if (!numbers) return Vector<T>{};
        return own.by_channel() ? load_part(numbers + v * V, alive(v)) : splat(numbers[v]);
    }

    // A vector's i-th partners in a sample, as the other map's blocks lie: its first cell.
    const T* partners(int n, int v, int i) const {
        if (mine * theirs == 1) return cell(other, n, v, 0);
        T* const to = GroupsMemory::memory<T, kInputs>(other.channel());
        std::fill_n(to, other.channel(), T(0));
        for (int l = 0; l < alive(v); ++l) {
            const T* const from =
                other.data + n * other.blocks_of_sample() * other.block() + lane_of(other, partner(v * V + l, i));
            for (std::ptrdiff_t at = 0; at < other.channel(); at += V) to[at + l] = from[at];
        }
        return to + (other.cell(0, 0, 0) - other.data);
    }
};

// What all outputs of a vector have in common.
template <typename T>
struct LaneSums {
    const Taps& taps;
    const T* weights;  // (cells, lanes)
    Vector<T> first;
    std::ptrdiff_t position, step;  // from one input that outputs begin at to the next; from output to output
    bool add, relu;

    // Some neighbouring outputs, C at a time.
    template <int C = kMostRows>
    void row(T* to, const T* from, const T* gate, int count) const {
        const std::ptrdiff_t *const offsets = taps.offsets, *const places = taps.places;
        const std::ptrdiff_t position = this->position, step = this->step;
        const bool add = this->add, relu = this->relu;  // stores might change the members
        for (; count >= C; count -= C, to += C * step, from += C * position) {
            Vector<T> sum[C];
            for (int c = 0; c < C; ++c) sum[c] = first;
            for (int t = 0, all = taps.count(); t < all; ++t) {
                const Vector<T> weight = load(weights + places[t] * kWidth<T>);
                const T* const x = from + offsets[t];
                for (int c = 0; c < C; ++c) sum[c] += weight * load(x + c * position);
            }
            for (int c = 0; c < C; ++c) {
                T* const at = to + c * step;
                store(at, finished<T>(sum[c], add, relu, at, gate ? gate + c * step : nullptr, load<T>));
            }
            if (gate) gate += C * step;
        }
        if constexpr (C > 1)
            if (count) row<C - 1>(to, from, gate, count);
    }
};

// y, or dx
template <typename T>
void outputs_in_groups(const GroupLanes<T>& lanes, const T* w, const Finish<T>& last) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const Map<T>&out = lanes.own, &in = lanes.other;
    each_slide(out, in, lanes.g, lanes.back, [&](const Slide& at) {
        const Taps taps = lane_taps(in, at.view, 1);
        const std::ptrdiff_t position = at.view.columns.step * V, down = at.view.rows.step * in.row();
        parallel(out.blocks() * out.channels, out.operations() * taps.count() * lanes.theirs / 8, [&](int task) {
            const int n = task / lanes.vectors, v = task % lanes.vectors;
            T* const kernels = GroupsMemory::memory<T, kWeights>(lanes.cells * V);
            for (int i = 0; i < lanes.theirs; ++i) {
                const T* const from = lanes.partners(n, v, i);
                lanes.kernels(kernels, w, v, i);
                const LaneSums<T> sums{
                    taps,          kernels,       lanes.of_lanes(i ? nullptr : last.bias, v), position,
                    at.across * V, last.add || i, last.relu && i == lanes.theirs - 1};
                for (int h = 0; h < at.rows; ++h) {
                    const int row = at.top + h * at.down;
                    const T* const gate = last.through ? lanes.cell(*last.through, n, v, row) + at.left * V : nullptr;
                    sums.row(lanes.cell(out, n, v, row) + at.left * V, from + h * down, gate, at.columns);
                }
            }
        });
    });
}

// dw (F, C/groups, *K) of all samples, or by channel (N, F, C/groups, *K) sample by sample
template <typename T>
void weight_gradient_in_groups(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const GroupLanes<T> lanes{dy, x, g, false};
    const int terms = lanes.theirs * lanes.cells, samples = dy.blocks() * dy.channels / lanes.vectors;
    const EvenRanges tiles(lanes.cells, kMostTaps);
    const View view = view_of_inputs(x, g);
    const std::ptrdiff_t* const taps = lane_taps(x, view, 1).offsets;
    parallel(lanes.vectors, dy.operations() * terms / 8, [&](int v) {
        T* const sums = GroupsMemory::memory<T, kSums>(terms * V);
        for (int n = 0; n < samples; ++n) {
            for (int i = 0; i < lanes.theirs; ++i) {
                const T* const from = lanes.partners(n, v, i);
                for (int t = 0; t < tiles.count; ++t)
                    outer<T>(1, tiles.size(t),
                             {sums + (i * lanes.cells + tiles.begin(t)) * V, 0, lanes.cell(dy, n, v, 0), 0, dy.row(),
                              from, g.stride_w * V, g.stride_h * x.row(), taps + tiles.begin(t), dy.height, dy.width,
                              n && !by_sample});
            }
            if (!by_sample && n < samples - 1) continue;
            T* to[V];
            for (int l = 0; l < lanes.alive(v); ++l)
                to[l] = dw + lanes.kernel(lanes.channel(v, l), 0) +
                        (by_sample ? std::ptrdiff_t(n) * dy.lane_channels * terms : 0);
            if (!dy.by_channel())
                sum_each(sums, terms), std::copy_n(sums, terms, to[0]);
            else
                separate(to, sums, terms, lanes.alive(v));
        }
    });
}

}  // namespace
}  // namespace sharedgrad
