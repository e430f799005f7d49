// Convolutions of few samples: the lanes are channels, and every sample's rows are as long as they are.
//
//   y[f,o]  = Σ_t w[f,t] · x[o·stride + t]      lanes: filters; each input, a single number, meets vectors of weights
//   dx[c,i] = Σ_t w[t,c] · dy[i/stride + t]     lanes: input channels; likewise
//   dw[f,t] = Σ_o dy[f,o] · x[o·stride + t]     lanes: filters, of the upstream gradients
#pragma once

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using ByChannelMemory = Owner<kTaps, kPlaces, kWeights, kSums>;

// Where channel c of the first sample lies.
template <typename T>
std::ptrdiff_t lane_of(const Map<T>& m, int c) {
    return c / m.lanes * m.block() + c % m.lanes;
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

// Where windows find the cells that their taps see, in the order (c, cell) of a kernel.
template <typename T>
struct LaneTaps {
    int count;
    std::ptrdiff_t* cells;

    LaneTaps(const Map<T>& x, const Window& g)
        : count(x.lane_channels * g.kernel_h * g.kernel_w),
          cells(ByChannelMemory::memory<std::ptrdiff_t, kTaps>(count)) {
        for (int c = 0, t = 0; c < x.lane_channels; ++c)
            for (int i = 0; i < g.kernel_h; ++i)
                for (int j = 0; j < g.kernel_w; ++j)
                    cells[t++] = lane_of(x, c) + (i * g.dilation_h - g.pad_h) * x.row() +
                                 std::ptrdiff_t(j * g.dilation_w - g.pad_w) * x.lanes;
    }
};

// ---- the sums

// sums (F positions, C vectors, lanes) = Σ_k w[places[k]] · x[position][cells[k]]
template <typename T>
struct LaneSums {
    template <int F, int C>
    static void run(T* sums, const T* w, const std::ptrdiff_t* places, const T* x, std::ptrdiff_t position,
                    const std::ptrdiff_t* cells, int count) {
        add_products<T, F, C>(
            sums, C * kWidth<T>, w, [=](std::ptrdiff_t k) { return places[k] * (C * kWidth<T>); }, x, position,
            [=](std::ptrdiff_t k) { return cells[k]; }, count, false);
    }
};

// Some of a map's cells: rows × columns of them, from (top, left) on.
struct Cells {
    int top, left, down, across, rows, columns;
};

// The outputs at some cells, each from inputs that lie `step` from those of the one before.
template <typename T>
struct ByChannel {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const LaneKernels<T>& kernels;
    const T* packed;
    Finish<T> last;
    Cells at;
    int step_h, step_w;
    const std::ptrdiff_t *cells, *places;  // (count): what is added up, as it lies in `in` and in w
    int count;
    int vectors = out.blocks_of_sample();

    void run() const {
        const int samples = out.blocks() / vectors, all = samples * kernels.tiles.count;
        const EvenRanges rows(at.rows, ceil_div(at.rows, ceil_div(kTasks, all)));
        parallel(all * rows.count, double(samples) * at.rows * at.columns * vectors * count, [&](int task) {
            const int piece = task % rows.count, tile = task / rows.count % kernels.tiles.count;
            for (int h = rows.begin(piece); h < rows.begin(piece + 1); ++h)
                row(task / rows.count / kernels.tiles.count, tile, h);
        });
    }

    void row(int sample, int tile, int h) const {
        const int first = kernels.tiles.begin(tile), size = kernels.tiles.size(tile);
        const EvenRanges columns(at.columns, rows_beside(size));
        const std::ptrdiff_t position = std::ptrdiff_t(step_w) * in.lanes;
        const T* const from = in.cell(sample * in.blocks_of_sample(), 0, h * step_h);
        alignas(64) T sums[kTileFilters * kTileColumns * V];
        for (int i = 0; i < columns.count; ++i) {
            const int column = columns.begin(i);
            tile_for<LaneSums<T>>(columns.size(i), size)(sums, packed + kernels.tile(tile), places,
                                                         from + column * position, position, cells, count);
            for (int v = 0; v < size; ++v)
                put(sums + v * V, size * V, columns.size(i), sample * vectors + first + v, h, column);
        }
    }

    // A vector's outputs at neighbouring cells.
    void put(const T* sums, int apart, int positions, int block, int h, int column) const {
        const int first = block % vectors * V, alive = std::min(V, out.lane_channels - first);
        const Vector<T> bias = last.bias ? load_part(last.bias + first, alive) : Vector<T>{};
        const std::ptrdiff_t begin = std::ptrdiff_t(at.left + column * at.across) * V,
                             step = std::ptrdiff_t(at.across) * V;
        T* const to = out.cell(block, 0, at.top + h * at.down) + begin;
        const T* const gate = last.through ? last.through->cell(block, 0, at.top + h * at.down) + begin : nullptr;
        for (int p = 0; p < positions; ++p)
            store(to + p * step, finished<T>(load(sums + p * apart) + bias, last.add, last.relu, to + p * step,
                                             gate ? gate + p * step : nullptr, load<T>));
    }
};

}  // namespace
}  // namespace sharedgrad
