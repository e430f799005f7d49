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

using GroupsMemory = Owner<kTaps, kPlaces, kWeights, kInputs, kSums>;

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
    const T* weights;                     // (cells, lanes)
    const std::ptrdiff_t *taps, *places;  // (count): what is added up, as it lies in the inputs and in the weights
    int count;
    Vector<T> first;
    bool add, relu;

    template <int P, int>
    static void run(const GroupSums& s) {
        Vector<T> sum[P];
        for (int p = 0; p < P; ++p) sum[p] = s.first;
        for (int t = 0; t < s.count; ++t) {
            const Vector<T> weight = load(s.weights + s.places[t]);
            for (int p = 0; p < P; ++p) sum[p] += weight * load(s.from + p * s.position + s.taps[t]);
        }
        for (int p = 0; p < P; ++p) {
            T* const to = s.to + p * s.step;
            store(to, finished<T>(sum[p], s.add, s.relu, to, s.gate ? s.gate + p * s.step : nullptr, load<T>));
        }
    }
};

// y, or dx added perhaps to what is there; then perhaps ReLU, or back through the ReLU with this output.
template <typename T>
void outputs_in_groups(const GroupLanes<T>& lanes, const T* w, const T* bias, const Map<T>* through, bool relu,
                       bool add) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const Map<T>&out = lanes.own, &in = lanes.other;
    const Window& g = lanes.g;
    const bool back = lanes.back;
    const int down = back ? g.stride_h : 1, across = back ? g.stride_w : 1, vectors = out.blocks_of_sample();
    const std::ptrdiff_t row = (back ? 1 : g.stride_h) * in.row(), cell = (back ? 1 : g.stride_w) * V;
    auto *taps = GroupsMemory::memory<std::ptrdiff_t, kTaps>(lanes.cells),
         *places = GroupsMemory::memory<std::ptrdiff_t, kPlaces>(lanes.cells);
    for (int a = 0; a < std::min(down, out.height); ++a)
        for (int b = 0; b < std::min(across, out.width); ++b) {
            const View view = back ? view_of_outputs(in, g, a, b) : view_of_inputs(in, g);
            const auto& [rows, columns] = view;
            int count = 0;
            for (int i = 0; i < rows.count; ++i)
                for (int j = 0; j < columns.count; ++j) {
                    taps[count] = rows.shift[i] * in.row() + columns.shift[j] * V;
                    places[count++] = (rows.cell[i] * g.kernel_w + columns.cell[j]) * V;
                }
            const int height = ceil_div(out.height - a, down), width = ceil_div(out.width - b, across);
            const EvenRanges tiles(width, kMostRows);
            parallel(out.blocks(), double(out.blocks()) * height * width * count * lanes.theirs, [&](int block) {
                const int v = block % vectors;
                T* const kernels = GroupsMemory::memory<T, kWeights>(lanes.cells * V);
                for (int i = 0; i < lanes.theirs; ++i) {
                    const bool last = i == lanes.theirs - 1;
                    const T* const from = lanes.partners(block / vectors, v, i);
                    lanes.kernels(kernels, w, v, i);
                    const Vector<T> first = bias && !i ? load_part(bias + v * V, lanes.alive(v)) : Vector<T>{};
                    for (int h = 0; h < height; ++h)
                        for (int t = 0; t < tiles.count; ++t) {
                            const std::ptrdiff_t begin = (b + tiles.begin(t) * across) * V;
                            const T* const gate =
                                last && through ? through->cell(block, 0, a + h * down) + begin : nullptr;
                            tile_for<GroupSums<T>>(
                                tiles.size(t), 1)({out.cell(block, 0, a + h * down) + begin, across * V, gate,
                                                   from + h * row + tiles.begin(t) * cell, cell, kernels, taps, places,
                                                   count, first, add || i, relu && last});
                        }
                }
            });
        }
}

// dw (F, C/groups, *K) of all samples, or (N, F, C/groups, *K) sample by sample
template <typename T>
void weight_gradient_in_groups(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g, bool by_sample) {
    constexpr std::ptrdiff_t V = kWidth<T>;
    const GroupLanes<T> lanes{dy, x, g, false};
    const int vectors = dy.blocks_of_sample(), samples = dy.blocks() / vectors, terms = lanes.theirs * lanes.cells;
    const EvenRanges tiles(lanes.cells, kMostTaps);
    auto* const taps = GroupsMemory::memory<std::ptrdiff_t, kTaps>(lanes.cells);
    for (int k = 0; k < lanes.cells; ++k)
        taps[k] = (k / g.kernel_w * g.dilation_h - g.pad_h) * x.row() + (k % g.kernel_w * g.dilation_w - g.pad_w) * V;
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
                    dw + (by_sample ? std::ptrdiff_t(n) * dy.lane_channels * terms : 0) + lanes.kernel(v * V + l, 0);
            separate(to, sums, terms, lanes.alive(v));
        }
    });
}

}  // namespace
}  // namespace sharedgrad
