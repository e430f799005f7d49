// Convolutions in groups, by channel: lane by lane, each filter with the channels of its own group.
//
//   y[f,o]  = Σ_i Σ_t w[f,i,t] · x[c(f,i),o·stride + t]     c(f,i): the i-th channel of f's group; lanes: filters
//   dx[c,o] = Σ_i Σ_t w[f(c,i),·,t] · dy[f(c,i),o/stride + t]   likewise the i-th filter of c's group; lanes: channels
//   dw[f,i,t] = Σ_o dy[f,o] · x[c(f,i),o·stride + t]        lanes: filters
//
// Where each channel is a group with one filter, both maps have it in the same lane; else the other map's are gathered.
#pragma once

#include "by_channel.hpp"

namespace sharedgrad {
namespace {

using GroupsMemory = Owner<kWeights, kInputs, kSums>;

// What the lanes of one map see of another.
template <typename T>
struct GroupLanes {
    static constexpr int V = kWidth<T>;
    const Map<T>&own, &other;
    const Window& g;
    bool back;  // whether the own channels are the inputs', the other ones the outputs'
    int mine = own.lane_channels / g.groups, theirs = other.lane_channels / g.groups;  // channels of a group
    int cells = g.kernel_h * g.kernel_w;

    int alive(int v) const { return std::min(V, own.lane_channels - v * V); }
    int partner(int c, int i) const { return c / mine * theirs + i; }
    // Where the kernel lies in w (F, C/groups, *K) with which channel c meets its i-th partner.
    std::ptrdiff_t kernel(int c, int i) const {
        return (back ? std::ptrdiff_t(partner(c, i)) * mine + c % mine : std::ptrdiff_t(c) * theirs + i) * cells;
    }

    // These kernels of a vector of channels: (cells, lanes).
    void kernels(T* to, const T* w, int v, int i) const {
        const T* rows[V];
        for (int l = 0; l < alive(v); ++l) rows[l] = w + kernel(v * V + l, i);
        interleave(to, rows, cells, alive(v));
    }

    // A vector's i-th partners in a sample, as the other map's blocks lie: its first cell.
    const T* partners(int sample, int v, int i) const {
        const int first = sample * other.blocks_of_sample();
        if (mine * theirs == 1) return other.cell(first + v, 0, 0);
        T* const to = GroupsMemory::memory<T, kInputs>(other.channel());
        std::fill_n(to, other.channel(), T(0));
        for (int l = 0; l < alive(v); ++l) {
            const int c = partner(v * V + l, i);
            const T* const from = other.data + (first + c / V) * other.block() + c % V;
            for (std::ptrdiff_t at = 0; at < other.channel(); at += V) to[at + l] = from[at];
        }
        return to + (other.cell(0, 0, 0) - other.data);
    }
};

// The outputs of neighbouring cells, `step` numbers from each other, from inputs that are `position` apart.
template <typename T>
struct GroupSums {
    T* to;
    std::ptrdiff_t step;
    const T *gate, *from;
    std::ptrdiff_t position;
    const T* weights;  // (cells, lanes)
    const Taps& taps;
    Vector<T> first;
    bool add, relu;

    template <int P, int>
    static void run(const GroupSums& s) {
        Vector<T> sum[P];
        for (int p = 0; p < P; ++p) sum[p] = s.first;
        const std::ptrdiff_t *const offsets = s.taps.offsets, *const places = s.taps.places, position = s.position;
        for (int t = 0, count = s.taps.count(); t < count; ++t) {
            const Vector<T> weight = load(s.weights + places[t] * kWidth<T>);
            const T* const x = s.from + offsets[t];
            for (int p = 0; p < P; ++p) sum[p] += weight * load(x + p * position);
        }
        for (int p = 0; p < P; ++p) {
            T* const to = s.to + p * s.step;
            store(to, finished<T>(sum[p], s.add, s.relu, to, s.gate ? s.gate + p * s.step : nullptr, load<T>));
        }
    }
};

// y, or dx
template <typename T>
void outputs_in_groups(const GroupLanes<T>& lanes, const T* w, const Finish<T>& last) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const Map<T>&out = lanes.own, &in = lanes.other;
    const int vectors = out.blocks_of_sample();
    each_slide(out, lanes.g, lanes.back, [&](const Slide& at) {
        const Taps taps = at.taps(in, 1);
        const EvenRanges tiles(at.columns, kMostRows);
        parallel(out.blocks(), out.operations() * V * taps.count() * lanes.theirs, [&](int block) {
            const int v = block % vectors;
            T* const kernels = GroupsMemory::memory<T, kWeights>(lanes.cells * V);
            for (int i = 0; i < lanes.theirs; ++i) {
                const T* const from = lanes.partners(block / vectors, v, i);
                lanes.kernels(kernels, w, v, i);
                const Vector<T> first = last.bias && !i ? load_part(last.bias + v * V, lanes.alive(v)) : Vector<T>{};
                for (int h = 0; h < at.rows; ++h)
                    for (int t = 0; t < tiles.count; ++t) {
                        const int row = at.top + h * at.down, column = tiles.begin(t);
                        const std::ptrdiff_t to = (at.left + column * at.across) * V;
                        tile_for<GroupSums<T>>(tiles.size(t), 1)(
                            {out.cell(block, 0, row) + to, at.across * V,
                             last.through ? last.through->cell(block, 0, row) + to : nullptr,
                             from + h * at.step_h * in.row() + column * at.step_w * V, at.step_w * V, kernels, taps,
                             first, last.add || i, last.relu && i == lanes.theirs - 1});
                    }
            }
        });
    });
}

// dw (F, C/groups, *K) of all samples, or (N, F, C/groups, *K) sample by sample
template <typename T>
void weight_gradient_in_groups(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const GroupLanes<T> lanes{dy, x, g, false};
    const int vectors = dy.blocks_of_sample(), samples = dy.blocks() / vectors, terms = lanes.theirs * lanes.cells;
    const EvenRanges tiles(lanes.cells, kMostTaps);
    const Slide at = slide_forward(dy, g);
    const std::ptrdiff_t* const taps = at.taps(x, 1).offsets;
    parallel(vectors, double(dy.blocks()) * dy.height * dy.width * terms, [&](int v) {
        T* const sums = GroupsMemory::memory<T, kSums>(terms * V);
        for (int n = 0; n < samples; ++n) {
            for (int i = 0; i < lanes.theirs; ++i) {
                const T* const from = lanes.partners(n, v, i);
                for (int t = 0; t < tiles.count; ++t)
                    outer<T>(1, tiles.size(t),
                             {sums + (i * lanes.cells + tiles.begin(t)) * V, 0, dy.cell(n * vectors + v, 0, 0), 0,
                              dy.row(), from, g.stride_w * V, g.stride_h * x.row(), taps + tiles.begin(t), dy.height,
                              dy.width, n && !by_sample});
            }
            if (!by_sample && n < samples - 1) continue;
            T* to[V];
            for (int l = 0; l < lanes.alive(v); ++l)
                to[l] =
                    dw + lanes.kernel(v * V + l, 0) + (by_sample ? std::ptrdiff_t(n) * dy.lane_channels * terms : 0);
            separate(to, sums, terms, lanes.alive(v));
        }
    });
}

}  // namespace
}  // namespace sharedgrad
