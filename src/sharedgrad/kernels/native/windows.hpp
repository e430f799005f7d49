// Where the windows of a convolution find their cells, as taps: offsets into a map with margins.
#pragma once

#include <utility>

#include "kernels.hpp"
#include "layout.hpp"

namespace sharedgrad {
namespace {

using WindowMemory = Owner<kTaps, kPlaces>;

constexpr int kTasks = 16;   // enough for the threads to share evenly, few enough to keep rows together
constexpr int kLines = 512;  // vectors of input that stay in the first-level cache while all filters use them
constexpr int kPositions = 6144 / kVectorBytes;  // likewise while all taps use them

// Multiplications of one pass, a vector's worth counted as one.
template <typename T>
double operations(const Map<T>& small, const Map<T>& big, const Window& g) {
    return small.operations() * (big.channels / g.groups) * g.kernel_h * g.kernel_w / 8;
}

// ---- what one map sees of another through windows

// Along one axis: the cells of a kernel that an output meets, and where, at output · step + shift.
struct Axis {
    int kernel, step, size;  // of the whole kernel; on the other map from output to output, and in all
    int count = 0, cell[kMostCells], shift[kMostCells];

    Axis(int phase, int kernel, int stride, int pad, int dilation, int step, int size)
        : kernel(kernel), step(step), size(size) {
        for (int k = 0; k < kernel; ++k) {
            const int at = phase + pad - k * dilation, rest = (at % stride + stride) % stride;
            if (rest) continue;
            cell[count] = k;
            shift[count++] = at / stride;
        }
    }

    // Those that meet the map, and not its margins, from one of these outputs on to another: [first, last).
    std::pair<int, int> meeting(int from, int to) const {
        const auto meets = [&](int k) { return to * step + shift[k] >= 0 && from * step + shift[k] < size; };
        int first = 0, last = count;
        while (first < last && !meets(first)) ++first;
        while (first < last && !meets(last - 1)) --last;
        return {first, last};
    }
};

struct View {
    Axis rows, columns;
};

// What outputs see of the inputs x.
template <typename T>
View view_of_inputs(const Map<T>& x, const Window& g) {
    return {{0, g.kernel_h, 1, -g.pad_h, -g.dilation_h, g.stride_h, x.height},
            {0, g.kernel_w, 1, -g.pad_w, -g.dilation_w, g.stride_w, x.width}};
}

// What inputs ≡ (a, b), modulo the strides, see of the outputs dy.
template <typename T>
View view_of_outputs(const Map<T>& dy, const Window& g, int a, int b) {
    return {{a, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h, 1, dy.height},
            {b, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w, 1, dy.width}};
}

// Outputs that see alike: rows × columns of them, from (top, left) on.
struct Slide {
    int top, left, down, across, rows, columns;
    View view;
};

// function(slide): forward all outputs, on the way back those of each phase
template <typename T, typename Function>
void each_slide(const Map<T>& out, const Map<T>& in, const Window& g, bool back, const Function& function) {
    if (!back) return function({0, 0, 1, 1, out.height, out.width, view_of_inputs(in, g)});
    for (int a = 0; a < std::min(g.stride_h, out.height); ++a)
        for (int b = 0; b < std::min(g.stride_w, out.width); ++b)
            function({a, b, g.stride_h, g.stride_w, ceil_div(out.height - a, g.stride_h),
                      ceil_div(out.width - b, g.stride_w), view_of_outputs(in, g, a, b)});
}

// The taps of one output, so many channels at a time as the cache holds: [chunk of channels][row][column][channel].
// Outputs near a border leave out the rows and columns of the kernel that lie in the margin.
struct Taps {
    const View& view;
    int channels, chunk;
    std::ptrdiff_t *offsets, *places;  // (count()): of each tap, in the map and in the weights

    int count() const { return channels * view.rows.count * view.columns.count; }
    int channels_from(int c) const { return std::min(chunk, channels - c); }
};

// Channel c lies channel(c) from the first, and its kernel in the weights c · apart.
template <typename T, typename Channel>
Taps taps_of(const Map<T>& in, const View& view, int channels, int chunk, std::ptrdiff_t apart,
             const Channel& channel) {
    const auto& [rows, columns] = view;
    Taps taps{view, channels, chunk, nullptr, nullptr};
    taps.offsets = WindowMemory::memory<std::ptrdiff_t, kTaps>(taps.count());
    taps.places = WindowMemory::memory<std::ptrdiff_t, kPlaces>(taps.count());
    for (int first = 0, t = 0; first < channels; first += chunk)
        for (int i = 0; i < rows.count; ++i)
            for (int j = 0; j < columns.count; ++j)
                for (int c = first; c < first + taps.channels_from(first); ++c, ++t) {
                    taps.offsets[t] =
                        channel(c) + rows.shift[i] * in.row() + std::ptrdiff_t(columns.shift[j]) * in.lanes;
                    taps.places[t] = c * apart + rows.cell[i] * columns.kernel + columns.cell[j];
                }
    return taps;
}

}  // namespace
}  // namespace sharedgrad
