// 3×3 convolutions with fewer multiplications for few samples: see winograd.hpp. A vector holds neighbouring tiles.
#pragma once

#include <atomic>
#include <limits>

#include "winograd.hpp"

namespace sharedgrad {
namespace {

using WinogradFewMemory = Owner<kWeights, kInputs>;

// Lane l is from[at[l]] where bit l of `lanes` is set, and zero elsewhere.
template <typename T>
inline Vector<T> load_lanes(const T* from, const std::int32_t* at, unsigned lanes) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), static_cast<__mmask16>(lanes), _mm512_loadu_si512(at),
                                        from, 4);
#endif
    T v[kWidth<T>];
    for (int l = 0; l < kWidth<T>; ++l) v[l] = lanes >> l & 1 ? from[at[l]] : T(0);
    return load(v);
}

template <typename T>
inline void store_lanes(T* to, const std::int32_t* at, Vector<T> v, unsigned lanes) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return _mm512_mask_i32scatter_ps(to, static_cast<__mmask16>(lanes), _mm512_loadu_si512(at), (__m512)v, 4);
#endif
    T each[kWidth<T>];
    store(each, v);
    for (int l = 0; l < kWidth<T>; ++l)
        if (lanes >> l & 1) to[at[l]] = each[l];
}

// Where the tiles of a vector begin in a channel of a map, and which lanes have a row, or a column, within the map.
template <typename T, int Cells>
struct Lanes {
    std::int32_t at[kWidth<T>] = {};
    unsigned rows[Cells] = {}, columns[Cells] = {};

    Lanes(const Map<T>& m, const Tiling& tiles, int vector, int pad_h, int pad_w) {
        for (int l = 0; l < kWidth<T>; ++l) {
            const int k = vector * kWidth<T> + l;
            if (k / m.lanes >= tiles.count) break;
            const auto at_tile = tiles.place(k / m.lanes);
            const int h = at_tile.h - pad_h, w = at_tile.w - pad_w;
            at[l] = std::int32_t(h * m.row() + w * m.lanes + k % m.lanes);
            for (int i = 0; i < Cells; ++i) {
                rows[i] |= unsigned(h + i < m.height) << l;
                columns[i] |= unsigned(w + i < m.width) << l;
            }
        }
    }
};

// Channels: with fewer the gathering costs more than is spared. AVX2 does it one by one.
constexpr int kWorthGathering = kVectorBytes == 32 ? 48 : 24;
constexpr std::ptrdiff_t kLargestOffset = std::numeric_limits<std::int32_t>::max() / 2;
constexpr int kManyStrips = 4;  // enough for the threads to share

// Vectors of tiles that are more than half full.
template <typename T>
bool few_by_winograd(const Map<T>& out, const Map<T>& in, const Window& g) {
    constexpr int V = kWidth<T>;
    const int lanes = Tiling(out).count * out.lanes;
    return minimal_filtering && sizeof(T) == 4 && in.lanes < V && in.blocks() == 1 && three_by_three(g) &&
           in.channels >= kWorthGathering && out.channels >= kWorthGathering && 2 * lanes > ceil_div(lanes, V) * V &&
           std::max(in.channel(), out.channel()) < kLargestOffset;
}

template <typename T>
struct WinogradFew {
    static constexpr int V = kWidth<T>;
    const Map<T>&out, &in;
    const T* w;  // as SmallKernels takes it
    Finish<T> last;
    Tiling tiles{out};
    int vectors = ceil_div(tiles.count * in.lanes, V);
    EvenRanges strips{vectors, kTileColumns}, filters{out.channels, kTileFilters};
    std::ptrdiff_t point = std::ptrdiff_t(strips.size(0)) * V * in.channels + kAside<T>;
    SmallKernels<T> kernels = SmallKernels<T>::of(w, out.channels, in.channels, last.turned);

    void run() const {
        if (strips.count < kManyStrips)
            by_filters();
        else
            by_strips();
    }

    // The threads share the filters: each transforms the kernels that it needs.
    void by_filters() const {
        T* const inputs = WinogradFewMemory::memory<T, kInputs>(strips.count * kPoints * point);
        const EvenRanges groups(in.channels, kTileFilters);
        std::atomic<bool> far[kManyStrips] = {};
        parallel(vectors * groups.count, work(), [&](int task) {
            const int vector = task / groups.count, group = task % groups.count, strip = strips.of(vector);
            T* const to = inputs + strip * kPoints * point;
            if (transform(to, strip, vector, groups.begin(group), groups.begin(group + 1))) far[strip] = true;
        });
        parallel(filters.count, work(), [&](int i) {
            T* const points = WinogradFewMemory::memory<T, kWeights>(points_of(filters.size(i)));
            kernels.transform(points, filters.begin(i), filters.begin(i + 1), 0, in.channels);
            for (int strip = 0; strip < strips.count; ++strip)
                multiply(inputs + strip * kPoints * point, strip, points, i, far[strip]);
        });
    }

    // They share the strips, whose points then stay in the second-level cache.
    void by_strips() const {
        T* const points = WinogradFewMemory::memory<T, kWeights>(points_of(out.channels));
        parallel(filters.count, work(), [&](int i) {
            kernels.transform(points + points_of(filters.begin(i)), filters.begin(i), filters.begin(i + 1), 0,
                              in.channels);
        });
        parallel(strips.count, work(), [&](int strip) {
            T* const inputs = WinogradFewMemory::memory<T, kInputs>(kPoints * point);
            bool far = false;
            for (int vector = strips.begin(strip); vector < strips.begin(strip + 1); ++vector)
                far |= transform(inputs, strip, vector, 0, in.channels);
            for (int i = 0; i < filters.count; ++i)
                multiply(inputs, strip, points + points_of(filters.begin(i)), i, far);
        });
    }

    double work() const { return operations(out, in, {3, 3, 1, 1, 0, 0, 1, 1, 1}); }
    std::size_t points_of(int filters) const { return std::size_t(kPoints) * filters * in.channels; }

    // Some channels of a vector of tiles into the points of a strip; whether their numbers are too large for that.
    bool transform(T* inputs, int strip, int vector, int first, int end) const {
        const std::ptrdiff_t channel = std::ptrdiff_t(strips.size(strip)) * V;
        const Lanes<T, kInputSide> lanes(in, tiles, vector, last.pad_h, last.pad_w);
        T* to = inputs + first * channel + (vector - strips.begin(strip)) * V;
        Vector<T> range = {};
        for (int c = first; c < end; ++c, to += channel)
            range += transform_cells(to, point, [&](int i, int j) { return input(lanes, c, i, j); });
        return any(range != range);
    }

    Vector<T> input(const Lanes<T, kInputSide>& lanes, int c, int i, int j) const {
        const T* const from = in.cell(0, c, 0) + i * in.row() + j * in.lanes;
        return load_lanes(from, lanes.at, lanes.rows[i] & lanes.columns[j]);
    }

    void multiply(const T* inputs, int strip, const T* points, int tile, bool far) const {
        const int count = strips.size(strip), first = filters.begin(tile), size = filters.size(tile);
        const std::ptrdiff_t apart = std::ptrdiff_t(size) * count * V;
        alignas(64) T sums[kPoints * kTileFilters * kTileColumns * V];
        for (int p = 0; p < kPoints; ++p)
            tile_for<PointProduct<T>>(size, count)(sums + p * apart, inputs + p * point,
                                                   points + std::ptrdiff_t(p) * size * in.channels, in.channels, false);
        for (int t = 0; t < count; ++t) {
            const auto in_map = [&](const Map<T>& m) {
                return Lanes<T, kOutputSide>(m, tiles, strips.begin(strip) + t, 0, 0);
            };
            const auto lanes = in_map(out), gates = in_map(last.through ? *last.through : out);
            for (int f = 0; f < size; ++f) {
                Vector<T> y[kOutputSide][kOutputSide];
                if (far)
                    define(y, strips.begin(strip) + t, first + f);
                else
                    transform_output(y, sums + (f * count + t) * V, apart);
                outputs(lanes, gates, first + f, y);
            }
        }
    }

    void define(Vector<T> (&y)[kOutputSide][kOutputSide], int vector, int f) const {
        const Lanes<T, kInputSide> lanes(in, tiles, vector, last.pad_h, last.pad_w);
        kernels.define(y, f, 0, in.channels, [&](int c, int i, int j) { return input(lanes, c, i, j); });
    }

    void outputs(const Lanes<T, kOutputSide>& lanes, const Lanes<T, kOutputSide>& gates, int f,
                 const Vector<T> (&y)[kOutputSide][kOutputSide]) const {
        const Vector<T> bias = splat(last.bias ? last.bias[f] : T(0));
        for (int i = 0; i < kOutputSide; ++i)
            for (int j = 0; j < kOutputSide; ++j) {
                const unsigned there = lanes.rows[i] & lanes.columns[j];
                T* const to = out.cell(0, f, i) + j * out.lanes;
                Vector<T> v = y[i][j] + bias;
                if (last.add) v += load_lanes(to, lanes.at, there);
                if (last.relu) v = relu_of<T>(v);
                if (last.through) {
                    const T* const gate = last.through->cell(0, f, i) + j * out.lanes;
                    v = relu_gate<T>(v, load_lanes(gate, gates.at, there));
                }
                store_lanes(to, lanes.at, v, there);
            }
    }
};

}  // namespace
}  // namespace sharedgrad
