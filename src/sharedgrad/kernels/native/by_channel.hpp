// Convolutions of few samples: the lanes are channels, and every sample's rows are as long as they are.
//
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]      lanes: filters; each input, a single number, meets vectors of weights
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]     lanes: input channels; likewise
//   dw[f,t] = Σ_o dy[f,o] · x[o·stride + t]     lanes: filters, of the upstream gradients
#pragma once

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using ByChannelMemory = Owner<kWeights, kSums>;

// Where channel c of the first sample lies.
template <typename T>
std::ptrdiff_t lane_of(const Map<T>& m, int c) {
    return c / kWidth<T> * m.block() + c % kWidth<T>;
}

// Kernels with channels in the lanes: [tile of vectors][term][vector][lane]. The lanes are filters and the terms
// (c, cell); or turned, they are input channels and the terms (f, cell).
template <typename T>
struct LaneKernels {
    static constexpr int V = kWidth<T>;
    int filters, channels, cells;
    bool turned;
    int lanes = turned ? channels : filters, terms = (turned ? filters : channels) * cells;
    EvenRanges tiles{ceil_div(lanes, V), kTileColumns};

    std::size_t size() const { return std::size_t(ceil_div(lanes, V)) * V * terms; }
    std::ptrdiff_t tile(int i) const { return std::ptrdiff_t(tiles.begin(i)) * terms * V; }

    const T* packed(const T* w) const {
        T* const to = ByChannelMemory::memory<T, kWeights>(size());
        pack(to, w);
        return to;
    }

    void pack(T* packed, const T* w) const {
        const int runs = turned ? filters : 1, run = turned ? cells : terms;
        const std::ptrdiff_t filter = std::ptrdiff_t(channels) * cells, lane = turned ? cells : filter;
        parallel(ceil_div(lanes, V), double(lanes) * terms, [&](int v) {
            const int i = tiles.of(v), alive = std::min(V, lanes - v * V);
            T* const to = packed + tile(i) + (v - tiles.begin(i)) * V;
            const std::ptrdiff_t step = std::ptrdiff_t(tiles.size(i)) * V;
            for (int k = 0; k < runs; ++k) {
                const T* rows[V];
                for (int l = 0; l < alive; ++l) rows[l] = w + k * filter + (v * V + l) * lane;
                interleave<T>(to + k * run * step, rows, run, alive, step);
            }
        });
    }
};

// Outputs that meet their inputs alike: rows × columns of them, from (top, left) on, each with inputs that lie a step
// from those of the one before.
struct Slide {
    int top, left, down, across, rows, columns, step_h, step_w;
    Phase kernel_rows, kernel_columns;

    // How many of these channels' taps there are, and where: in the order (c, cell) of a kernel.
    template <typename T>
    Taps taps(const Map<T>& in, int channels) const {
        const Phase &h = kernel_rows, &w = kernel_columns;
        return ordered(
            {channels, h.count, w.count, 1, nullptr, nullptr, step_h, in.height, h.shift},
            [&](int c, int i, int j) {
                return lane_of(in, c) + h.shift[i] * in.row() + std::ptrdiff_t(w.shift[j]) * kWidth<T>;
            },
            [&](int c, int i, int j) { return (std::ptrdiff_t(c) * h.kernel + h.cell[i]) * w.kernel + w.cell[j]; });
    }
};

// The outputs of a convolution.
template <typename T>
Slide slide_forward(const Map<T>& y, const Window& g) {
    return {0,
            0,
            1,
            1,
            y.height,
            y.width,
            g.stride_h,
            g.stride_w,
            Phase::forward(g.kernel_h, g.pad_h, g.dilation_h),
            Phase::forward(g.kernel_w, g.pad_w, g.dilation_w)};
}

// function(slide): forward all outputs, on the way back those of each phase
template <typename T, typename Function>
void each_slide(const Map<T>& out, const Window& g, bool back, const Function& function) {
    if (!back) return function(slide_forward(out, g));
    for (int a = 0; a < std::min(g.stride_h, out.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, out.width); ++b)
            function({a, b, g.stride_h, g.stride_w, ceil_div(out.height - a, g.stride_h),
                      ceil_div(out.width - b, g.stride_w), 1, 1,
                      Phase(a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h),
                      Phase(b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w)});
}

// ---- the sums

template <typename T>
struct ByChannel {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const LaneKernels<T>& kernels;
    const T* packed;
    Finish<T> last;
    const Slide& at;
    const Taps& taps;
    int vectors = out.blocks_of_sample();

    void run() const {
        const int samples = out.blocks() / vectors, all = samples * kernels.tiles.count;
        const EvenRanges rows(at.rows, ceil_div(at.rows, ceil_div(kTasks, all)));
        parallel(all * rows.count, double(samples) * at.rows * at.columns * vectors * taps.count(), [&](int task) {
            const int piece = task % rows.count, tile = task / rows.count % kernels.tiles.count;
            const EvenRanges columns(at.columns, rows_beside(kernels.tiles.size(tile)));
            for (int h = rows.begin(piece); h < rows.begin(piece + 1); ++h)
                row(task / rows.count / kernels.tiles.count, tile, h, columns);
        });
    }

    void row(int sample, int tile, int h, const EvenRanges& columns) const {
        const int first = kernels.tiles.begin(tile), size = kernels.tiles.size(tile);
        const int block = sample * vectors + first, down = at.top + h * at.down;
        const auto rows = taps.meeting(h, h);
        const std::ptrdiff_t to = std::ptrdiff_t(at.left) * V;
        Tiles tiles{packed + kernels.tile(tile),
                    in.cell(sample * in.blocks_of_sample(), 0, h * at.step_h),
                    rows.first * taps.columns,
                    rows.second * taps.columns,
                    first * V,
                    out.cell(block, 0, down) + to,
                    last.through ? last.through->cell(block, 0, down) + to : nullptr,
                    columns.larger};
        if (columns.larger) tile_for<ByChannel<T>>(columns.size(0), size)(*this, tiles);
        tiles.count = columns.count - columns.larger;
        tile_for<ByChannel<T>>(columns.base, size)(*this, tiles);
    }

    // Neighbouring outputs of some vectors, so many tiles of them one after the other.
    struct Tiles {
        const T *w, *from;
        int begin, end;  // of each channel's taps
        int channel;     // the first of the outputs' channels
        T* to;
        const T* gate;
        int count;
    };

    template <int F, int C>
    static void run(const ByChannel& p, Tiles& tiles) {
        const Taps& taps = p.taps;
        const int channels = taps.channels, kernel = taps.rows * taps.columns, begin = tiles.begin, end = tiles.end;
        const std::ptrdiff_t *const offsets = taps.offsets, *const places = taps.places;
        const std::ptrdiff_t position = std::ptrdiff_t(p.at.step_w) * V;
        const std::ptrdiff_t step = std::ptrdiff_t(p.at.across) * V, block = p.out.block();
        const std::ptrdiff_t gate_block = p.last.through ? p.last.through->block() : 0;
        const bool add = p.last.add, relu = p.last.relu;
        const T *const weights = tiles.w, *gate = tiles.gate, *from = tiles.from;
        T* to = tiles.to;
        Vector<T> bias[C] = {};
        for (int c = 0, first = tiles.channel; p.last.bias && c < C; ++c, first += V)
            bias[c] = load_part(p.last.bias + first, std::min(V, p.out.lane_channels - first));
        for (int i = tiles.count; i > 0; --i) {
            Vector<T> sum[F][C];
            for (int f = 0; f < F; ++f)
                for (int c = 0; c < C; ++c) sum[f][c] = Vector<T>{};
            for (int channel = 0; channel < channels; ++channel)
                for (int k = channel * kernel + begin; k < channel * kernel + end; ++k) {
                    const T *const x = from + offsets[k], *const w = weights + places[k] * (C * V);
                    Vector<T> v[C];
                    for (int c = 0; c < C; ++c) v[c] = load(w + c * V);
                    for (int f = 0; f < F; ++f) {
                        const Vector<T> input = splat(x[f * position]);
                        for (int c = 0; c < C; ++c) sum[f][c] += input * v[c];
                    }
                }
            for (int f = 0; f < F; ++f, to += step, gate += gate ? step : 0)
                for (int c = 0; c < C; ++c)
                    store(to + c * block, finished<T>(sum[f][c] + bias[c], add, relu, to + c * block,
                                                      gate ? gate + c * gate_block : nullptr, load<T>));
            from += F * position;
        }
        tiles.from = from, tiles.to = to, tiles.gate = gate;
    }
};

}  // namespace
}  // namespace sharedgrad
