// Depthwise convolution of plain arrays (N, C, H, W); groups.hpp has that of maps in blocks. Vectors are neighbouring
// outputs of a row. Some rows of them stay in registers while what they see passes by: each vector of inputs is read
// once for all outputs that meet it through one column of the kernel. Lanes whose inputs lie beyond the map's edges are
// left out as they are read, so nothing is copied.
#pragma once

#include <vector>

#include "conv_gradient.hpp"

namespace sharedgrad {
namespace {

using DepthwiseMemory = Owner<kCells>;
static_assert(disjoint<DepthwiseMemory, KernelGradientMemory>());

constexpr int kMostRun = 5;             // rows of a kernel, whose weights are in registers beside kMostRows sums
constexpr int kDepthwiseChannels = 64;  // whose weights' gradients a task sums

// A column of a kernel and a vector of outputs: what these see of a row, and which lanes' inputs the map has.
template <typename T>
struct Column {
    std::ptrdiff_t at;         // the first lane's
    int cell;                  // of the kernel
    Vector<T> lanes, further;  // negative where there is an input; at a stride of two, of two vectors of inputs

    Column(const Axis& axis, int j, int first, int outputs)
        : at(std::ptrdiff_t(first) * axis.step + axis.shift[j]), cell(axis.cell[j]) {
        const auto seen = [&](int place) {
            const bool some = place % axis.step == 0 && first + place / axis.step < outputs;
            return T(some && at + place >= 0 && at + place < axis.size ? -1 : 1);
        };
        lanes = vector_of_lanes<T>(seen);
        further = vector_of_lanes<T>([&](int l) { return seen(kWidth<T> + l); });
    }
};

template <int Step, typename T>
Vector<T> read(const T* from, Vector<T> lanes, Vector<T> further) {
    if constexpr (Step == 1) return in_register(load_lanes(from, lanes));
    return in_register(every<2>(load_lanes(from, lanes), load_lanes(from + kWidth<T>, further), kAllLanes<T>));
}

// Some rows of outputs, and what they see through neighbouring rows of a kernel: each of these meets what the row
// before it meets of the next output.
template <typename T>
struct Tile {
    int shift, run = 0;              // of the first row of the kernel; how many
    std::ptrdiff_t cells[kMostRun];  // where they begin
    bool first = true;               // of those with these outputs
    int top = 0, rows = 0;           // of the outputs
    int phase = 0, outputs = 0;      // of their columns; of each row
    unsigned there = 0;              // of the rows + run − 1 rows of inputs those that the map has, a bit each
    std::ptrdiff_t x = 0, row = 0;   // where the first of them begins; from row to row
    const Column<T>* columns = nullptr;
    int count = 0;                                            // of the kernel's columns
    std::ptrdiff_t x_map = 0, sums_map = 0, factors_map = 0;  // with Weights, from one of the maps to the next
    // Adds to the `sums` of maps, with weights as factors or upstream gradients; outputs' rows lie so far apart.
    void (*add)(const Tile&, const T* x, T* sums, const T* factors, std::ptrdiff_t apart, T first, int maps) = nullptr;
};

// The map that comes next, as its pages are others than those that the processor foresees.
template <typename T>
const T* next_fetched(const T* map, std::ptrdiff_t numbers) {
    for (std::ptrdiff_t i = 0; i < numbers; i += 64 / sizeof(T)) __builtin_prefetch(map + numbers + i);
    return map;
}

// Either rows of outputs, which stay in registers, sum what a column's weights make of the inputs; or a column's sums,
// its weights' gradients, sum what the outputs' upstream gradients, which stay, make of them.
template <typename T, bool Weights, int Step>
struct TileSums {
    template <int R, int K>
    static void run(const Tile<T>& t, const T* x, T* sums, const T* factors, std::ptrdiff_t apart, T first, int maps) {
        constexpr int V = kWidth<T>;
        const unsigned there = t.there;
        const std::ptrdiff_t row = t.row;
        for (int more = Weights ? maps : 1; more-- > 0; x += t.x_map, sums += t.sums_map, factors += t.factors_map) {
            if (Weights && more) x = next_fetched(x, t.x_map), factors = next_fetched(factors, t.factors_map);
            const T* w[K];
            T* dw[K];
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) w[k] = factors + t.cells[k], dw[k] = sums + t.cells[k] * V;
            const Column<T>* c = t.columns;
            auto [to, by] = std::pair(sums, factors);
            for (int outputs = t.outputs; outputs > 0; outputs -= V, to += V, by += V) {
                Vector<T> here[R];
#pragma GCC unroll 8
                for (int o = 0; o < R; ++o)
                    if constexpr (Weights)
                        here[o] = in_register(load_part(by + o * apart, std::min(V, outputs)));
                    else
                        here[o] = t.first ? splat(first) : load(to + o * apart);
                for (int j = t.count; j > 0; --j, ++c) {
                    Vector<T> column[K];
#pragma GCC unroll 8
                    for (int k = 0; k < K; ++k)
                        column[k] = Weights ? load(dw[k] + c->cell * V) : in_register(splat(w[k][c->cell]));
                    const T* from = x + t.x + c->at;
                    const auto lanes = in_register(c->lanes), further = Step == 1 ? lanes : in_register(c->further);
#pragma GCC unroll 16
                    for (int r = 0; r < R + K - 1; ++r, from += row) {
                        if (!(there & 1u << r)) continue;
                        const Vector<T> v = read<Step>(from, lanes, further);
#pragma GCC unroll 8
                        for (int k = 0; k < K; ++k)
                            if (r >= k && r - k < R)
                                (Weights ? column[k] : here[r - k]) += (Weights ? here[r - k] : column[k]) * v;
                    }
#pragma GCC unroll 8
                    for (int k = 0; Weights && k < K; ++k) store(dw[k] + c->cell * V, column[k]);
                }
#pragma GCC unroll 8
                for (int o = 0; !Weights && o < R; ++o) store(to + o * apart, here[o]);
            }
        }
    }
};

// The tiles of a map, for outputs or with Weights for the weights' gradients. Outputs that see alike lie `down` rows
// and `phases` columns from each other.
template <typename T, bool Weights>
struct Sight {
    template <int Step>
    using Sums = TileSums<T, Weights, Step>;
    static constexpr int V = kWidth<T>;
    int down, phases;
    std::vector<std::vector<Column<T>>> columns;
    std::vector<Tile<T>> tiles;

    Sight(const Map<T>& out, const Map<T>& in, const Window& g, bool back)
        : down(back ? g.stride_h : 1), phases(back ? std::min(g.stride_w, out.width) : 1), columns(phases) {
        each_slide(out, in, g, back, [&](const Slide& at) {
            std::vector<Column<T>>& own = columns[at.left];
            for (int o = 0; at.top == 0 && o < at.columns; o += V)
                for (int j = 0; j < at.view.columns.count; ++j) own.emplace_back(at.view.columns, j, o, at.columns);
            const int step = at.view.columns.step;
            for (Tile<T> tile : runs_of(at.view, step == 1 ? kMostRun : 2)) {
                tile.phase = at.left, tile.outputs = at.columns;
                tile.columns = own.data(), tile.count = at.view.columns.count, tile.x_map = in.channel();
                tile.sums_map = g.kernel_h * g.kernel_w * V, tile.factors_map = out.channel();
                add(tile, at, in.width, step);
            }
        });
        std::stable_sort(tiles.begin(), tiles.end(), [](const auto& a, const auto& b) { return a.top < b.top; });
    }

    // The rows of a kernel in runs, the lowest first.
    static std::vector<Tile<T>> runs_of(const View& view, int most) {
        const Axis& rows = view.rows;
        std::vector<Tile<T>> runs;
        const bool falling = rows.count > 1 && rows.shift[1] < rows.shift[0];
        for (int i = 0; i < rows.count; ++i) {
            const int k = falling ? rows.count - 1 - i : i;
            auto run = std::find_if(runs.begin(), runs.end(), [&](const Tile<T>& r) {
                return r.run < most && rows.shift[k] == r.shift + r.run * rows.step;
            });
            if (run == runs.end()) run = runs.insert(run, {rows.shift[k], 0, {}, runs.empty()});
            run->cells[run->run++] = std::ptrdiff_t(rows.cell[k]) * view.columns.kernel;
        }
        if (runs.empty()) runs.push_back({0, 1, {}});  // what sees nothing
        return runs;
    }

    void add(Tile<T> tile, const Slide& at, int width, int step) {
        const Axis& rows = at.view.rows;
        const EvenRanges ranges(at.rows, kMostRows);
        const int shift = tile.shift;
        for (int t = 0; t < ranges.count; ++t) {
            tile.top = at.top + ranges.begin(t) * down, tile.rows = ranges.size(t);
            tile.shift = shift + ranges.begin(t) * rows.step, tile.there = 0;
            for (int r = 0; rows.count && r < tile.rows + tile.run - 1; ++r) {
                const int h = tile.shift + r * rows.step;
                tile.there |= unsigned(h >= 0 && h < rows.size) << r;
            }
            tile.x = std::ptrdiff_t(tile.shift) * width, tile.row = std::ptrdiff_t(rows.step) * width;
            tile.add = step == 1 ? tile_for<Sums<1>, kMostRows, kMostRun, kMostRows * kMostRun>(tile.rows, tile.run)
                                 : tile_for<Sums<2>, kMostRows, 2, kMostRows * kMostRun>(tile.rows, tile.run);
            tiles.push_back(tile);
        }
    }
};

// From sums (phases, H, row) to a map (H, W).
template <typename T>
void put(const Map<T>& out, T* to, const T* sums, std::ptrdiff_t row, int phases) {
    constexpr int V = kWidth<T>;
    for (int h = 0; h < out.height; ++h, to += out.width, sums += row) {
        const auto part = [&](int i, Vector<T> v) {
            if (i < out.width) store_part(to + i, v, std::min(V, out.width - i));
        };
        for (int i = 0; i < row; i += V) {
            const Vector<T> a = load(sums + i), b = load(sums + (phases - 1) * out.height * row + i);
            part(phases * i, phases == 1 ? a : in_turn<0>(a, b, kAllLanes<T>));
            if (phases == 2) part(2 * i + V, in_turn<V / 2>(a, b, kAllLanes<T>));
        }
    }
}

// y, or on the way back dx
template <typename T>
void depthwise_outputs(const Map<T>& out, const Map<T>& in, const T* w, const T* bias, const Window& g, bool back) {
    constexpr int V = kWidth<T>;
    const Sight<T, false> sight(out, in, g, back);
    const int maps = out.samples * out.channels, cells = g.kernel_h * g.kernel_w;
    const std::ptrdiff_t row = ceil_div(ceil_div(out.width, sight.phases), V) * V;
    const std::ptrdiff_t inputs = in.channel(), outputs = out.channel();
    // Sums go to their place where all are whole vectors, or what lies beyond a row's end is still to come in this
    // task.
    const bool narrow = out.width < V, direct = sight.phases * sight.down == 1 && (narrow || out.width % V == 0);
    const EvenRanges tasks(maps, ceil_div(maps, 4 * kTasks));
    parallel(tasks.count, out.operations() * cells / 8, [&](int task) {
        T* const aside = DepthwiseMemory::memory<T, kCells>(sight.phases * out.height * row);
        const int end = tasks.begin(task + 1);
        for (int i = tasks.begin(task), c = i % out.channels; i < end; ++i, c = c + 1 < out.channels ? c + 1 : 0) {
            const T* const x = next_fetched(in.data + i * inputs, inputs);
            T* const to = out.data + i * outputs;
            const bool there = direct && (!narrow || (i + 1) * outputs - out.width + V <= end * outputs);
            const std::ptrdiff_t apart = there ? out.width : row;
            for (const Tile<T>& tile : sight.tiles)
                tile.add(tile, x, (there ? to : aside + tile.phase * out.height * row) + tile.top * apart,
                         w + c * cells, sight.down * apart, bias ? bias[c] : T(0), 1);
            if (!there) put(out, to, aside, row, sight.phases);
        }
    });
}

template <typename T>
void depthwise_weight_gradient(T* dw, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const Sight<T, true> sight(dy, x, g, false);
    const int cells = g.kernel_h * g.kernel_w;
    const EvenRanges channels(dy.channels, kDepthwiseChannels);
    const EvenRanges parts(dy.samples, ceil_div(dy.samples, ceil_div(kTasks, channels.count)));
    const std::ptrdiff_t size = std::ptrdiff_t(dy.channels) * cells, inputs = x.channel(), outputs = dy.channel();
    T* const sums = KernelGradientMemory::memory<T, kParts>(parts.count * size * V);
    std::fill_n(sums, parts.count * size * V, T(0));
    parallel(channels.count * parts.count, dy.operations() * cells / 8, [&](int task) {
        const int range = task % channels.count, part = task / channels.count;
        const int together = sight.tiles.size() > 1 ? 1 : channels.size(range);  // maps that a tile goes through
        for (int n = parts.begin(part); n < parts.begin(part + 1); ++n)
            for (int c = channels.begin(range); c < channels.begin(range + 1); c += together) {
                const std::ptrdiff_t map = std::ptrdiff_t(n) * dy.channels + c;
                const T* const from = next_fetched(x.data + map * inputs, inputs);
                const T* const deltas = next_fetched(dy.data + map * outputs, outputs);
                for (const Tile<T>& tile : sight.tiles)
                    tile.add(tile, from, sums + (part * size + c * cells) * V, deltas + tile.top * dy.width, dy.width,
                             T(0), together);
            }
    });
    sum_each(sums, parts.count * size);
    add_parts(dw, sums, parts.count, size);
}

}  // namespace
}  // namespace sharedgrad
