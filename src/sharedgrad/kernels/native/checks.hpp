// The maps and numbers that an operation takes, and what must hold before it may run.
#pragma once

#include "depthwise.hpp"
#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

// Whether they hold the same channels of the same samples, of other cells perhaps.
template <typename T>
bool same_channels(const Map<T>& a, const Map<T>& b) {
    return a.samples == b.samples && a.lanes == b.lanes && a.channels == b.channels &&
           a.lane_channels == b.lane_channels;
}

// Whether cell by cell and lane by lane the maps belong together; their margins may differ.
template <typename T>
bool same(const Map<T>& a, const Map<T>& b) {
    return same_channels(a, b) && a.height == b.height && a.width == b.width;
}

// (N, C), samples side by side.
template <typename T>
bool is_cell(const Map<T>& m) {
    return m.bare() && m.height * m.width == 1;
}

// Plain (N, C, H, W).
template <typename T>
bool is_plain(const Map<T>& m) {
    return m.lanes == 1 && m.bare() && !m.by_channel();
}

// Plain (N, C).
template <typename T>
bool is_vector(const Map<T>& m) {
    return m.lanes == 1 && is_cell(m);
}

// The maps and numbers that one operation takes.
template <typename T>
struct Operands {
    const Map<T>* all;            // the program's
    const std::int64_t* maps;     // of each of the operation's maps, its number in `all`, or −1
    const std::int64_t* numbers;  // the operation's own

    bool has(int i) const { return maps[i] >= 0; }
    const Map<T>& operator[](int i) const { return all[maps[i]]; }
    const Map<T>* perhaps(int i) const { return has(i) ? &all[maps[i]] : nullptr; }
    T* data(int i) const { return has(i) ? (*this)[i].data : nullptr; }
    double* squares(int i) const { return reinterpret_cast<double*>(data(i)); }  // in float64, in memory of T
    int number(int i) const { return int(numbers[i]); }
    T real(int i) const {  // written as the bits of a double
        double value;
        std::memcpy(&value, numbers + i, sizeof value);
        return T(value);
    }
    Window window() const {
        const auto n = [&](int i) { return number(i); };
        return {n(0), n(1), n(2), n(3), n(4), n(5), n(6), n(7), n(8)};
    }

    // Whether each of these maps is missing, or like the first.
    template <typename... Maps>
    bool alike(int first, Maps... others) const {
        return ((!has(others) || same((*this)[first], (*this)[others])) && ...);
    }
    // Whether each of these maps is missing, or a plain array of so many elements.
    template <typename... Maps>
    bool hold(std::ptrdiff_t elements, Maps... maps) const {
        return ((!has(maps) || ((*this)[maps].bare() && (*this)[maps].size() == elements)) && ...);
    }
    // The same for numbers in float64.
    bool hold_squares(std::ptrdiff_t elements, int i) const {
        return hold(elements * int(sizeof(double) / sizeof(T)), i);
    }
    // Whether these are plain vectors, of as many samples.
    template <typename... Maps>
    bool vectors(int first, Maps... others) const {
        return is_vector((*this)[first]) &&
               ((is_vector((*this)[others]) && (*this)[others].samples == (*this)[first].samples) && ...);
    }
    // Whether map i has a factor for each sample of a map, and for its padding.
    bool factors(int i, const Map<T>& m) const { return vectors(i) && (*this)[i].size() >= m.blocks() * m.lanes; }
};

// Windows over `big` give `small`, and reach no further than big's margins.
template <typename T>
bool slides(const Map<T>& small, const Map<T>& big, const Window& g) {
    const auto axis = [](int out, int stride, int kernel, int dilation, int pad, int before, int size, int after) {
        return out > 0 && kernel > 0 && kernel <= kMostCells && stride > 0 && stride <= kLargest && dilation > 0 &&
               pad >= 0 && pad <= before &&
               (out - 1LL) * stride + (kernel - 1LL) * dilation + 1 - pad <= 0LL + size + after;
    };
    const bool order = small.by_channel() == big.by_channel() && small.lanes == big.lanes;
    return small.samples == big.samples && order && g.groups > 0 && small.channels > 0 && big.channels > 0 &&
           axis(small.height, g.stride_h, g.kernel_h, g.dilation_h, g.pad_h, big.top, big.height, big.bottom) &&
           axis(small.width, g.stride_w, g.kernel_w, g.dilation_w, g.pad_w, big.left, big.width, big.right);
}

// A map whose margins are as wide as anybody asks.
template <typename T>
Map<T> with_margins(Map<T> map) {
    map.top = map.bottom = map.left = map.right = kLargest;
    return map;
}

// Whether a depthwise convolution will make the margins that are missing.
template <typename T>
bool makes_margins(const Map<T>& small, const Map<T>& big, const Window& g) {
    return !big.by_channel() && depthwise(small, big, g);
}

// The same for a convolution.
template <typename T>
bool convolves(const Map<T>& small, const Map<T>& big, const Window& g) {
    return slides(small, makes_margins(small, big, g) ? with_margins(big) : big, g);
}

// How far outputs before 0 and after the last are read on the way back, over all phases of one axis.
inline bool margins_reach(int size, int out, int kernel, int stride, int pad, int dilation, int before, int after) {
    for (int phase = 0; phase < std::min(stride, size); ++phase) {
        const Axis p(phase, kernel, stride, pad, dilation, 1, out);
        for (int i = 0; i < p.count; ++i)
            if (-p.shift[i] > before || (size - 1 - phase) / stride + p.shift[i] > out - 1 + after) return false;
    }
    return true;
}

// Windows over `dx` have given `dy`, whose margins are as wide as the way back reads.
template <typename T>
bool slides_back(const Map<T>& dx, const Map<T>& dy, const Window& g) {
    if (!slides(dy, with_margins(dx), g)) return false;  // the windows fit if a padded input's margins are there
    return makes_margins(dy, dx, g) ||
           (margins_reach(dx.height, dy.height, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h, dy.top, dy.bottom) &&
            margins_reach(dx.width, dy.width, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w, dy.left, dy.right));
}

// Elements of w (small.channels, big.channels / groups, kernel_h, kernel_w), or −1 where the groups do not fit.
template <typename T>
std::ptrdiff_t kernel_size(const Map<T>& small, const Map<T>& big, const Window& g) {
    if (g.groups < 1 || small.channels % g.groups || big.channels % g.groups) return -1;
    return std::ptrdiff_t(small.channels) * (big.channels / g.groups) * g.kernel_h * g.kernel_w;
}

// The same for pooling, channel by channel. A window may reach beyond the map: what is not there is left out.
template <typename T>
bool slides_pool(const Map<T>& small, const Map<T>& big, const Window& g) {
    return slides(small, with_margins(big), g) && small.channels == big.channels;
}

// `small` has one cell for each window of 2×2 cells of `big`.
template <typename T>
bool is_pooled_2x2(const Map<T>& small, const Map<T>& big) {
    return same_channels(small, big) && small.height == big.height / 2 && small.width == big.width / 2;
}

// Windows over `big` give the cells that are pooled to `small`, whose lanes all are samples.
template <typename T>
bool slides_pooled(const Map<T>& small, const Map<T>& big, const Window& g, int kind) {
    if (small.height > kLargest / 2 || small.width > kLargest / 2) return false;
    Map<T> outputs = small;
    outputs.height *= 2, outputs.width *= 2;
    return small.lanes == kWidth<T> && kind >= kIdentity && kind <= kTanh && slides(outputs, big, g);
}

// A plain vector (N, C) beside a map of C channels.
template <typename T>
bool vector_of(const Map<T>& vector, const Map<T>& map) {
    const Map<T> m = map.logical();
    return is_vector(vector) && vector.samples == m.samples && vector.channels == m.channels;
}

}  // namespace
}  // namespace sharedgrad
