// 1×1 convolutions: products of matrices over the cells of all channels, in blocks or in plain arrays as they lie. Some
// vectors of all inputs are copied to where they stay in the first-level cache while all filters use them and the next
// ones are on their way from memory.
#pragma once

#include "conv.hpp"
#include "conv_gradient.hpp"
#include "dense.hpp"
#include "maps.hpp"

namespace sharedgrad {
namespace {

using PointwiseMemory = Owner<kInputs, kSums, kParts>;
using PointwiseSumsMemory = Owner<kWeights>;
static_assert(disjoint<PointwiseMemory, ConvMemory>() && disjoint<PointwiseMemory, PointwiseSumsMemory>());

constexpr int kChannels = 8192 / kVectorBytes;     // whose share of a tile stays in the first-level cache
constexpr int kCopied = 24 * 1024 / kVectorBytes;  // vectors of inputs that do
constexpr int kAcross = 33;                        // vectors of each channel
constexpr int kLine = kVectorBytes < 64 ? 64 / kVectorBytes : 1;  // vectors
constexpr int kFewInputs = 8;       // channels: of plain arrays with more the dense layer's product takes less time
constexpr int kPointwiseParts = 8;  // of the cells, each with weight gradients of its own

template <typename T>
bool pointwise(const Map<T>& small, const Map<T>& big, const Window& g) {
    const bool same = g.stride_h * g.stride_w == 1 && small.height == big.height && small.width == big.width;
    return g.groups == 1 && g.kernel_h * g.kernel_w == 1 && !g.pad_h && !g.pad_w &&
           ((small.plain() && big.plain()) || (big.lanes == kWidth<T> && same));
}

// The numbers of a channel that lie side by side in two maps: all of them, or row by row.
template <typename T>
struct Runs {
    int count;
    std::ptrdiff_t numbers;  // of a run
    int vectors, last;       // of a run, and the numbers in the last one
    Runs(const Map<T>& a, bool whole) : count(whole ? 1 : a.height), numbers(a.used() * a.height / count) {
        vectors = int((numbers + kWidth<T> - 1) / kWidth<T>);
        last = int(numbers - (vectors - 1) * std::ptrdiff_t(kWidth<T>));
    }
    // Of a block's first channel vector i of all.
    T* at(const Map<T>& map, int i) const {
        return map.cell(i / vectors / count, 0, i / vectors % count) + std::ptrdiff_t(i % vectors) * kWidth<T>;
    }
    int valid(int i) const { return (i + 1) % vectors ? kWidth<T> : last; }
};

// Some vectors one after the other, as they lie in the first channel of each map.
template <typename T>
struct Stretch {
    int count, valid[kAcross];
    const T *in[kAcross], *gate[kAcross];
    T* out[kAcross];
};

// Asks for some vectors of all channels, channel by channel, a few at a time.
template <typename T, bool Write>
struct Ahead {
    const T* const* at;  // (count), in the first channel
    int count, channels;
    std::ptrdiff_t channel;
    int share, c = 0, v = 0;
    Ahead(const T* const* at, int count, const Map<T>& map, int calls)
        : at(at), count(count), channels(count ? map.channels : 0), channel(map.channel()) {
        share = ceil_div(channels * ceil_div(count, kLine), calls);
    }
    void fetch() {
        for (int i = 0; i < share && c < channels; ++i) {
            __builtin_prefetch(at[v] + c * channel, Write, Write ? 3 : 2);
            if ((v += kLine) >= count) v = 0, ++c;
        }
    }
};

// out[f] = Σ_c w[f][c] · in[c] + bias or what out holds; then perhaps ReLU, or zero where `through`, the output of a
// ReLU, is. In w filters and channels lie so far apart.
template <typename T>
struct Pointwise {
    const Map<T>&out, &in;
    const T *w, *bias;
    std::ptrdiff_t w_filter, w_channel;
    bool add, relu;
    const Map<T>* through;

    EvenRanges tiles{out.channels, kTileFilters}, chunks{in.channels, kChannels};
    Runs<T> runs{out, out.bare() && in.bare() && (!through || through->bare())};
    int columns = most_columns(tiles.size(0)), vectors = out.blocks() * runs.count * runs.vectors;
    bool copies = in.lanes < kWidth<T>;  // the vectors of a plain array go on beyond its end
    int most = std::max(1, std::min(kAcross, copies ? kCopied / in.channels : kAcross) / columns) * columns;

    void run() const {
        const std::ptrdiff_t copied = std::ptrdiff_t(most) * kWidth<T>, channel = copies ? copied : in.channel();
        const Taps taps = ordered(
            {in.channels, 1, 1, in.channels, nullptr, nullptr, 1, 0, nullptr},
            [&](int c, int, int) { return c * channel; }, [&](int c, int, int) { return c * w_channel; });
        const T* const weights = packed(w, taps, 1, tiles, 0, w_filter);
        const int pieces = ceil_div(vectors, most);
        const EvenRanges tasks(pieces, ceil_div(pieces, kTasks));
        parallel(tasks.count, out.operations() * in.channels / 8, [&](int task) {
            T* const copy = PointwiseMemory::memory<T, kInputs>(copies ? in.channels * copied : 0);
            const int end = std::min(vectors, tasks.begin(task + 1) * most);
            Stretch<T> stretches[2];
            int at = tasks.begin(task) * most;
            place(stretches[0], at, end);
            for (int i = 0; at < end; i ^= 1) {
                Stretch<T>& own = stretches[i];
                place(stretches[i ^ 1], at += own.count, end);
                for (int v = 0; copies && v < own.count; ++v) {
                    T* const to = copy + v * kWidth<T>;
                    const T* const from = std::exchange(own.in[v], to);
                    for (int c = 0; c < in.channels; ++c) {
                        const T* const cells = from + c * in.channel();
                        const bool whole = own.valid[v] == kWidth<T>;
                        store(to + c * copied, whole ? load(cells) : load_part(cells, own.valid[v]));
                    }
                }
                multiply(own, stretches[i ^ 1], taps, weights);
            }
        });
    }

    void place(Stretch<T>& to, int first, int end) const {
        to.count = std::min(most, end - first);
        for (int v = 0; v < to.count; ++v) {
            to.in[v] = runs.at(in, first + v), to.out[v] = runs.at(out, first + v);
            to.gate[v] = through ? runs.at(*through, first + v) : nullptr;
            to.valid[v] = runs.valid(first + v);
        }
    }

    void multiply(const Stretch<T>& own, const Stretch<T>& next, const Taps& taps, const T* weights) const {
        T* to[kMostColumns];
        const T* gate[kMostColumns];
        const int calls = ceil_div(own.count, columns) * chunks.count * tiles.count;
        Ahead<T, false> ahead_in(next.in, next.count, in, calls),
            ahead_gate(next.gate, through ? next.count : 0, through ? *through : out, calls);
        Ahead<T, true> ahead_out(next.out, next.count, out, calls);
        for (int v = 0; v < own.count; v += columns)
            for (int k = 0; k < chunks.count; ++k)
                for (int t = 0; t < tiles.count; ++t) {
                    const int n = std::min(columns, own.count - v);
                    const int f = tiles.begin(t), size = tiles.size(t), first = chunks.begin(k);
                    const bool last = k == chunks.count - 1;
                    for (int c = 0; c < n; ++c) {
                        to[c] = own.out[v + c] + f * out.channel();
                        if (through) gate[c] = own.gate[v + c] + f * through->channel();
                    }
                    ahead_in.fetch(), ahead_gate.fetch(), ahead_out.fetch();
                    correlate<T>(size, n,
                                 {to, out.channel(), own.in + v, taps.offsets + first, chunks.size(k),
                                  weights + std::size_t(f) * in.channels + std::size_t(first) * size,
                                  bias ? bias + f : nullptr, add || k, relu && last, through && last ? gate : nullptr,
                                  through ? through->channel() : 0, own.valid + v});
                }
    }
};

// Of a plain map at stride the cells that 1×1 windows see, or where they would go: (N, C, *P); itself at stride 1.
template <typename T>
Map<T> seen(const Map<T>& big, const Map<T>& small) {
    if (big.height == small.height && big.width == small.width) return big;
    Map<T> own = big;
    own.height = small.height, own.width = small.width;
    own.data = PointwiseMemory::memory<T, kParts>(own.size());
    return own;
}

// function(a number of the map, the one of `own` that is seen) for all that are
template <typename T, typename Function>
void each_seen(const Map<T>& big, const Map<T>& own, const Window& g, const Function& function) {
    parallel(own.samples, own.operations(), [&](int n) {
        for (int c = 0; c < own.channels; ++c)
            for (int h = 0; h < own.height; ++h)
                for (int w = 0; w < own.width; ++w)
                    function(big.cell(n, c, h * g.stride_h)[w * g.stride_w], own.cell(n, c, h)[w]);
    });
}

template <typename T>
Map<T> gathered(const Map<T>& x, const Map<T>& y, const Window& g) {
    const Map<T> own = seen(x, y);
    if (own.data != x.data) each_seen(x, own, g, [](T from, T& to) { to = from; });
    return own;
}

// out (N, F, cells) = in (N, C, cells) times w (F, C) + bias or what out holds; w is given as (C, F) with Across
template <typename T, bool Across>
void multiply_plain(const Map<T>& out, const Map<T>& in, const T* w, const T* bias, bool add) {
    const std::ptrdiff_t cells = out.channel();
    parallel(out.samples, out.operations() * in.channels / 8, [&](int n) {
        product<T, Across, false>({out.cell(n, 0, 0), cells}, {nullptr, bias, add},
                                  {w, Across ? out.channels : in.channels}, {in.cell(n, 0, 0), cells}, out.channels,
                                  int(cells), in.channels);
    });
}

template <typename T>
void pointwise_conv(const Map<T>& y, const Map<T>& x, const T* w, const T* bias, const Window& g, bool relu) {
    const Map<T> in = gathered(x, y, g);
    if (!in.plain() || in.channels <= kFewInputs)
        return Pointwise<T>{y, in, w, bias, x.channels, 1, false, relu, nullptr}.run();
    multiply_plain<T, false>(y, in, w, bias, false);
    if (relu) activate(y, y, kReLU);
}

template <typename T>
void pointwise_input_gradient(const Map<T>& dx, const Map<T>& dy, const T* w, const Map<T>* through, const Window& g,
                              bool add) {
    const Map<T> own = seen(dx, dy);
    if (!dx.plain()) return Pointwise<T>{dx, dy, w, nullptr, 1, dx.channels, add, false, through}.run();
    const bool whole = own.data == dx.data;
    multiply_plain<T, true>(own, dy, w, nullptr, whole && add);
    if (!whole && !add) std::fill_n(dx.data, dx.size(), T(0));
    if (!whole) each_seen(dx, own, g, [](T& to, T from) { to += from; });
    if (through) activate_backward(dx, dx, *through, kReLU);
}

// dw[f][c] = Σ dy[f] · x[c], dbias[f] = Σ dy[f]
template <typename T>
void pointwise_weight_gradient(T* dw, T* dbias, const Map<T>& dy, const Map<T>& x, const Window& g) {
    constexpr int V = kWidth<T>;
    const Map<T> in = gathered(x, dy, g);
    const Runs<T> runs(dy, dy.bare() && in.bare());
    const EvenRanges lengths(runs.vectors, kDepth / V);
    const int count = dy.blocks() * runs.count * lengths.count;
    const EvenRanges parts(count, ceil_div(count, kPointwiseParts));
    const std::ptrdiff_t kernel = std::ptrdiff_t(dy.channels) * x.channels;
    T* const all = PointwiseSumsMemory::memory<T, kWeights>(parts.count * (kernel + dy.channels));
    T* const biases = all + parts.count * kernel;
    parallel(parts.count, dy.operations() * x.channels / 8, [&](int part) {
        T* const own = all + part * kernel;
        T* const sums = PointwiseMemory::memory<T, kSums>(std::ptrdiff_t(dy.channels) * V);
        std::fill_n(sums, std::ptrdiff_t(dy.channels) * V, T(0));
        for (int i = parts.begin(part); i < parts.begin(part + 1); ++i) {
            const int length = i % lengths.count, first = i / lengths.count * runs.vectors + lengths.begin(length);
            const std::ptrdiff_t numbers = std::min(runs.numbers - std::ptrdiff_t(lengths.begin(length)) * V,
                                                    std::ptrdiff_t(lengths.size(length)) * V);
            const Rows<const T> delta{runs.at(dy, first), dy.channel()};
            product<T, false, true>({own, x.channels}, {nullptr, nullptr, i > parts.begin(part)}, delta,
                                    {runs.at(in, first), in.channel()}, dy.channels, x.channels, int(numbers));
            for (int f = 0; dbias && f < dy.channels; ++f) {
                Vector<T> sum = load(sums + f * V);
                for (std::ptrdiff_t at = 0; at < numbers; at += V)
                    sum += load_part(delta[f] + at, int(std::min<std::ptrdiff_t>(V, numbers - at)));
                store(sums + f * V, sum);
            }
        }
        for (int f = 0; f < dy.channels; ++f) biases[part * dy.channels + f] = total<T>(load(sums + f * V));
    });
    add_parts(dw, all, parts.count, kernel);
    if (dbias) add_parts(dbias, biases, parts.count, dy.channels);
}

}  // namespace
}  // namespace sharedgrad
