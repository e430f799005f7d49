// A program: operations on maps, one after the other. Each takes maps (by number) and whole numbers.
//
// The Python side (native/program.py) writes programs: it knows which shapes belong together and where maps lie.
// Here every map is checked to lie within its array, and every operation that its maps fit, before anything runs.
#pragma once

#include "dense.hpp"
#include "halve.hpp"
#include "maps.hpp"
#include "norm.hpp"
#include "passes.hpp"
#include "persample.hpp"

namespace sharedgrad {
namespace {

template <typename T>
struct Operands {
    const Map<T>* all;
    const std::int64_t* maps;
    const std::int64_t* numbers;

    bool has(int i) const { return maps[i] >= 0; }
    const Map<T>& map(int i) const { return all[maps[i]]; }
    const Map<T>* perhaps(int i) const { return has(i) ? &map(i) : nullptr; }
    T* data(int i) const { return has(i) ? map(i).data : nullptr; }
    int number(int i) const { return int(numbers[i]); }
    T real(int i) const {  // written as the bits of a double
        double value;
        std::memcpy(&value, numbers + i, sizeof value);
        return T(value);
    }
    Window window(int from) const {
        const auto n = [&](int i) { return number(from + i); };
        return {n(0), n(1), n(2), n(3), n(4), n(5), n(6), n(7), n(8)};
    }
};

constexpr int kLargest = 1 << 30;  // of all sizes, so that a + b − 1 is an int

// ---- what must hold before an operation may run

template <typename T>
bool same(const Map<T>& a, const Map<T>& b) {
    return a.samples == b.samples && a.lanes == b.lanes && a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
}

template <typename T>
bool holds(const Operands<T>& o, int i, std::ptrdiff_t elements) {
    return !o.has(i) || (o.map(i).bare() && o.map(i).size() == elements);
}

// Windows over `big` give `small`, and reach no further than big's margins.
template <typename T>
bool slides(const Map<T>& small, const Map<T>& big, const Window& g) {
    const auto axis = [](int out, int stride, int kernel, int dilation, int pad, int before, int size, int after) {
        return out > 0 && kernel > 0 && kernel <= kMostCells && stride > 0 && stride <= kLargest && dilation > 0 &&
               pad >= 0 && pad <= before &&
               (out - 1LL) * stride + (kernel - 1LL) * dilation + 1 - pad <= 0LL + size + after;
    };
    return small.samples == big.samples && small.lanes == big.lanes && g.groups > 0 && small.channels > 0 &&
           big.channels > 0 &&
           axis(small.height, g.stride_h, g.kernel_h, g.dilation_h, g.pad_h, big.top, big.height, big.bottom) &&
           axis(small.width, g.stride_w, g.kernel_w, g.dilation_w, g.pad_w, big.left, big.width, big.right);
}

// How far outputs before 0 and after the last are read on the way back, over all phases of one axis.
inline bool reaches(int size, int out, int kernel, int stride, int pad, int dilation, int before, int after) {
    for (int phase = 0; phase < std::min(stride, size); ++phase) {
        const Phase p(phase, kernel, stride, pad, dilation);
        for (int i = 0; i < p.count; ++i)
            if (-p.shift[i] > before || (size - 1 - phase) / stride + p.shift[i] > out - 1 + after) return false;
    }
    return true;
}

template <typename T>
bool slides_back(const Map<T>& dx, const Map<T>& dy, const Window& g) {
    Map<T> wide = dx;  // the windows themselves fit if the margins of a padded input are there
    wide.top = wide.bottom = wide.left = wide.right = kLargest;
    return slides(dy, wide, g) &&
           reaches(dx.height, dy.height, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h, dy.top, dy.bottom) &&
           reaches(dx.width, dy.width, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w, dy.left, dy.right);
}

template <typename T>
std::ptrdiff_t kernel_size(const Map<T>& small, const Map<T>& big, const Window& g) {
    if (g.groups < 1 || small.channels % g.groups || big.channels % g.groups) return -1;
    return std::ptrdiff_t(small.channels) * (big.channels / g.groups) * g.kernel_h * g.kernel_w;
}

template <typename T>
bool slides_pool(const Map<T>& small, const Map<T>& big, const Window& g) {
    Map<T> wide = big;  // a window may reach beyond the map: what is not there is left out
    wide.top = wide.bottom = wide.left = wide.right = kLargest;
    return slides(small, wide, g) && small.channels == big.channels;
}

// `small` has one cell for each window of 2×2 cells of `big`.
template <typename T>
bool half(const Map<T>& small, const Map<T>& big) {
    return small.samples == big.samples && small.lanes == big.lanes && small.channels == big.channels &&
           small.height == big.height / 2 && small.width == big.width / 2;
}

// Windows over `big` give the cells that are pooled to `small`, whose lanes all are samples.
template <typename T>
bool slides_halved(const Map<T>& small, const Map<T>& big, const Window& g, int kind) {
    if (small.height > kLargest / 2 || small.width > kLargest / 2) return false;
    Map<T> outputs = small;
    outputs.height *= 2, outputs.width *= 2;
    return small.lanes == kWidth<T> && kind >= kIdentity && kind <= kTanh && slides(outputs, big, g);
}

// Plain (N, C).
template <typename T>
bool is_vector(const Map<T>& v) {
    return v.lanes == 1 && v.bare() && v.height * v.width == 1;
}

// A plain vector (N, C) beside a map of C channels.
template <typename T>
bool vector_of(const Map<T>& vector, const Map<T>& map) {
    return is_vector(vector) && vector.samples == map.samples && vector.channels == map.channels;
}

// A number in float64 for each of so many samples, in memory of T.
template <typename T>
bool holds_squares(const Operands<T>& o, int i, int samples) {
    return holds(o, i, std::ptrdiff_t(samples) * int(sizeof(double) / sizeof(T)));
}

template <typename T>
double* squares(const Operands<T>& o, int i) {
    return reinterpret_cast<double*>(o.data(i));
}

// A factor for each sample of a map, and for its padding.
template <typename T>
bool holds_factors(const Operands<T>& o, int i, const Map<T>& m) {
    return is_vector(o.map(i)) && o.map(i).size() >= m.blocks() * m.lanes;
}

// ---- the operations: maps, numbers, what must hold, what happens

template <typename T>
struct Operation {
    int maps, numbers;
    unsigned optional;  // bit i: map i may be missing (−1)
    bool (*fits)(const Operands<T>& o);
    void (*run)(const Operands<T>& o);
};

template <typename T>
using In = const Operands<T>&;

template <typename T>
bool normalizes(In<T> o) {
    for (int i = 3; i < 7; ++i)
        if (!holds(o, i, o.map(0).channels)) return false;
    return same(o.map(0), o.map(1)) && (!o.has(2) || same(o.map(0), o.map(2)));
}

template <typename T, bool Own>
void normalize_with(In<T> o) {
    normalize<T, Own>(o.map(0), o.map(1), o.perhaps(2), o.data(3), o.data(4), o.data(5), o.data(6), o.number(0),
                      o.real(1));
}

template <typename T>
constexpr Operation<T> kOperations[] = {
    // 0 relayout: to, from
    {2, 0, 0,
     [](In<T> o) {
         const auto &a = o.map(0), &b = o.map(1);
         const bool cells = a.channels == b.channels && a.height == b.height && a.width == b.width;
         const auto size = [](const Map<T>& m) { return std::ptrdiff_t(m.channels) * m.height * m.width; };
         const bool flat = (is_vector(a) || is_vector(b)) && size(a) == size(b);
         return a.samples == b.samples && (cells || flat) && (a.lanes == b.lanes || a.lanes == 1 || b.lanes == 1);
     },
     [](In<T> o) { relayout(o.map(0), o.map(1)); }},
    // 1 conv: y, x, w, bias; window, relu
    {4, 10, 1u << 3,
     [](In<T> o) {
         return slides(o.map(0), o.map(1), o.window(0)) && holds(o, 2, kernel_size(o.map(0), o.map(1), o.window(0))) &&
                holds(o, 3, o.map(0).channels);
     },
     [](In<T> o) { convolve(o.map(0), o.map(1), o.data(2), o.data(3), o.window(0), o.number(9)); }},
    // 2 conv_input_gradient: dx, dy, w, output of the ReLU that dx goes through; window, add
    {4, 10, 1u << 3,
     [](In<T> o) {
         return slides_back(o.map(0), o.map(1), o.window(0)) &&
                holds(o, 2, kernel_size(o.map(1), o.map(0), o.window(0))) && (!o.has(3) || same(o.map(0), o.map(3)));
     },
     [](In<T> o) { input_gradient(o.map(0), o.map(1), o.data(2), o.perhaps(3), o.window(0), o.number(9)); }},
    // 3 conv_weight_gradient: dw, dbias, dy, x; window, by_sample
    {4, 10, 1u << 1,
     [](In<T> o) {
         const auto &dy = o.map(2), &x = o.map(3);
         const std::ptrdiff_t kernel = kernel_size(dy, x, o.window(0)), apart = o.number(9) ? dy.samples : 1;
         return slides(dy, x, o.window(0)) && kernel > 0 && holds(o, 0, kernel * apart) &&
                holds(o, 1, dy.channels * apart);
     },
     [](In<T> o) { weight_gradient(o.data(0), o.data(1), o.map(2), o.map(3), o.window(0), o.number(9)); }},
    // 4 channel_sums: sums, dy; by_sample
    {2, 1, 0,
     [](In<T> o) {
         const auto& dy = o.map(1);
         return holds(o, 0, std::ptrdiff_t(dy.channels) * (o.number(0) ? dy.samples : 1));
     },
     [](In<T> o) { channel_sums(o.data(0), o.map(1), o.number(0)); }},
    // 5 activate: y, x; kind
    {2, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)); },
     [](In<T> o) { activate(o.map(0), o.map(1), o.number(0)); }},
    // 6 activate_backward: dx, dy, y; kind
    {3, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { activate_backward(o.map(0), o.map(1), o.map(2), o.number(0)); }},
    // 7 add: y, a, b; kind of activation
    {3, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { add(o.map(0), o.map(1), o.map(2), o.number(0)); }},
    // 8 multiply: y, a, b
    {3, 0, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { multiply(o.map(0), o.map(1), o.map(2)); }},
    // 9 clear_margins: map
    {1, 0, 0, [](In<T>) { return true; }, [](In<T> o) { clear_margins(o.map(0)); }},
    // 10 max_pool: y, x; window
    {2, 9, 0, [](In<T> o) { return slides_pool(o.map(0), o.map(1), o.window(0)); },
     [](In<T> o) { max_pool(o.map(0), o.map(1), o.window(0)); }},
    // 11 max_pool_backward: dx, dy, x, y; window, relu
    {4, 10, 0,
     [](In<T> o) {
         return slides_pool(o.map(1), o.map(0), o.window(0)) && same(o.map(0), o.map(2)) && same(o.map(1), o.map(3));
     },
     [](In<T> o) { max_pool_backward(o.map(0), o.map(1), o.map(2), o.map(3), o.window(0), o.number(9)); }},
    // 12 avg_pool: y, x; window, whether padding counts
    {2, 10, 0, [](In<T> o) { return slides_pool(o.map(0), o.map(1), o.window(0)); },
     [](In<T> o) { avg_pool(o.map(0), o.map(1), o.window(0), o.number(9)); }},
    // 13 avg_pool_backward: dx, dy; window, whether padding counts
    {2, 10, 0, [](In<T> o) { return slides_pool(o.map(1), o.map(0), o.window(0)); },
     [](In<T> o) { avg_pool_backward(o.map(0), o.map(1), o.window(0), o.number(9)); }},
    // 14 global_mean: y, x
    {2, 0, 0, [](In<T> o) { return vector_of(o.map(0), o.map(1)); }, [](In<T> o) { global_mean(o.map(0), o.map(1)); }},
    // 15 global_mean_backward: dx, dy
    {2, 0, 0, [](In<T> o) { return vector_of(o.map(1), o.map(0)); },
     [](In<T> o) { global_mean_backward(o.map(0), o.map(1)); }},
    // 16 batch_normalize: y, x, shortcut, mean, variance, weight, bias; relu, epsilon; mean and variance are written
    {7, 2, 1u << 2, normalizes<T>, normalize_with<T, true>},
    // 17 normalize: the same with given mean and variance
    {7, 2, 1u << 2, normalizes<T>, normalize_with<T, false>},
    // 18 normalize_backward: dx, dweight, dbias, dy, x, mean, variance, weight, bias; training, relu, epsilon
    {9, 3, 1u << 0,
     [](In<T> o) {
         for (int i : {1, 2, 5, 6, 7, 8})
             if (!holds(o, i, o.map(3).channels)) return false;
         return (!o.has(0) || same(o.map(0), o.map(3))) && same(o.map(4), o.map(3));
     },
     [](In<T> o) {
         normalize_backward(o.perhaps(0), o.data(1), o.data(2), o.map(3), o.map(4), o.data(5), o.data(6), o.data(7),
                            o.data(8), o.number(0), o.number(1), o.real(2));
     }},
    // 19 linear: y, x, w, bias; relu
    {4, 1, 1u << 3,
     [](In<T> o) {
         const auto &y = o.map(0), &x = o.map(1);
         return is_vector(y) && is_vector(x) && y.samples == x.samples &&
                holds(o, 2, std::ptrdiff_t(y.channels) * x.channels) && holds(o, 3, y.channels);
     },
     [](In<T> o) {
         const auto &y = o.map(0), &x = o.map(1);
         linear(y.data, x.data, o.data(2), o.data(3), y.samples, x.channels, y.channels);
         if (o.number(0)) activate(y, y, kReLU);
     }},
    // 20 linear_input_gradient: dx, dy, w
    {3, 0, 0,
     [](In<T> o) {
         const auto &dx = o.map(0), &dy = o.map(1);
         return is_vector(dx) && is_vector(dy) && dx.samples == dy.samples &&
                holds(o, 2, std::ptrdiff_t(dy.channels) * dx.channels);
     },
     [](In<T> o) {
         const auto &dx = o.map(0), &dy = o.map(1);
         linear_input_gradient(dx.data, dy.data, o.data(2), dx.samples, dx.channels, dy.channels);
     }},
    // 21 linear_weight_gradient: dw, dbias, dy, x; by_sample
    {4, 1, 1u << 1,
     [](In<T> o) {
         const auto &dy = o.map(2), &x = o.map(3);
         const std::ptrdiff_t apart = o.number(0) ? dy.samples : 1;
         return is_vector(dy) && is_vector(x) && dy.samples == x.samples &&
                holds(o, 0, apart * dy.channels * x.channels) && holds(o, 1, apart * dy.channels);
     },
     [](In<T> o) {
         const auto &dy = o.map(2), &x = o.map(3);
         if (!o.number(0))
             return linear_weight_gradient(o.data(0), o.data(1), dy.data, x.data, dy.samples, x.channels, dy.channels);
         outer_products<T>(o.data(0), dy.data, x.data, dy.samples, dy.channels, x.channels);
         if (o.has(1)) std::copy_n(dy.data, dy.size(), o.data(1));
     }},
    // 22 zero: map
    {1, 0, 0, [](In<T>) { return true; }, [](In<T> o) { std::fill_n(o.data(0), o.map(0).size(), T(0)); }},
    // 23 add_squares: squares, map
    {2, 0, 0, [](In<T> o) { return holds_squares(o, 0, o.map(1).samples); },
     [](In<T> o) { add_squares(squares(o, 0), o.map(1)); }},
    // 24 add_linear_squares: squares, dy, x; whether there is a bias
    {3, 1, 0,
     [](In<T> o) {
         return is_vector(o.map(1)) && is_vector(o.map(2)) && o.map(1).samples == o.map(2).samples &&
                holds_squares(o, 0, o.map(1).samples);
     },
     [](In<T> o) { add_linear_squares(squares(o, 0), o.map(1), o.map(2), o.number(0)); }},
    // 25 add_kernel_squares: squares, dy, x, kept; window
    {4, 9, 1u << 3,
     [](In<T> o) {
         if (!slides(o.map(1), o.map(2), o.window(0))) return false;
         const std::ptrdiff_t kernel = kernel_size(o.map(1), o.map(2), o.window(0));
         const Map<T>* kept = o.perhaps(3);
         return kernel > 0 && holds_squares(o, 0, o.map(1).samples) &&
                (!kept || (kept->samples == o.map(1).samples && kept->lanes == o.map(1).lanes && kept->bare() &&
                           kept->channels == kernel && kept->height * kept->width == 1));
     },
     [](In<T> o) { add_kernel_squares(squares(o, 0), o.map(1), o.map(2), o.window(0), o.perhaps(3)); }},
    // 26 add_gram_squares: squares, dy, x; window
    {3, 9, 0,
     [](In<T> o) {
         return slides(o.map(1), o.map(2), o.window(0)) && kernel_size(o.map(1), o.map(2), o.window(0)) > 0 &&
                o.map(1).lanes == kWidth<T> && holds_squares(o, 0, o.map(1).samples);
     },
     [](In<T> o) { add_gram_squares(squares(o, 0), o.map(1), o.map(2), o.window(0)); }},
    // 27 clip_factors: factors, norms, squares, max_norm (in float64)
    {4, 0, 0,
     [](In<T> o) {
         const int samples = o.map(1).channels;
         return is_vector(o.map(1)) && o.map(1).samples == 1 && is_vector(o.map(0)) && o.map(0).size() >= samples &&
                holds_squares(o, 2, samples) && holds_squares(o, 3, 1);
     },
     [](In<T> o) {
         double max_norm;
         std::memcpy(&max_norm, o.data(3), sizeof max_norm);
         clip_factors(o.map(0), o.map(1), squares(o, 2), max_norm);
     }},
    // 28 scale_samples: map, factors
    {2, 0, 0, [](In<T> o) { return holds_factors(o, 1, o.map(0)); },
     [](In<T> o) { scale_samples(o.map(0), o.data(1)); }},
    // 29 weighted_sum: sum, map, factors
    {3, 0, 0,
     [](In<T> o) {
         const auto& m = o.map(1);
         return m.bare() && m.height * m.width == 1 && holds(o, 0, m.channels) && holds_factors(o, 2, m);
     },
     [](In<T> o) { weighted_sum(o.data(0), o.map(1), o.data(2)); }},
    // 30 normalize_gradients: dweight, dbias, dy, x, y, mean, variance; epsilon
    {7, 1, 1u << 0 | 1u << 1 | 1u << 4,
     [](In<T> o) {
         const auto& dy = o.map(2);
         for (int i : {0, 1, 5, 6})
             if (!holds(o, i, std::ptrdiff_t(dy.channels) * (i < 2 ? dy.samples : 1))) return false;
         return same(o.map(3), dy) && (!o.has(4) || same(o.map(4), dy));
     },
     [](In<T> o) {
         normalize_gradients(o.data(0), o.data(1), o.map(2), o.map(3), o.perhaps(4), o.data(5), o.data(6), o.real(0));
     }},
    // 31 halve: y, winners, x; kind of activation
    {3, 1, 1u << 1, [](In<T> o) { return half(o.map(0), o.map(2)) && (!o.has(1) || same(o.map(1), o.map(0))); },
     [](In<T> o) { halve(o.map(0), o.perhaps(1), o.map(2), o.number(0)); }},
    // 32 halve_backward: dx, sums, dy, y, winners; kind of activation
    {5, 1, 1u << 1,
     [](In<T> o) {
         return half(o.map(2), o.map(0)) && same(o.map(2), o.map(3)) && same(o.map(2), o.map(4)) &&
                holds(o, 1, o.map(0).channels);
     },
     [](In<T> o) { halve_backward(o.map(0), o.data(1), o.map(2), o.map(3), o.map(4), o.number(0)); }},
    // 33 conv_halve: y, winners, x, w, bias; window, kind of activation
    {5, 10, 1u << 1 | 1u << 4,
     [](In<T> o) {
         const auto &y = o.map(0), &x = o.map(2);
         return slides_halved(y, x, o.window(0), o.number(9)) && (!o.has(1) || same(o.map(1), y)) &&
                holds(o, 3, kernel_size(y, x, o.window(0))) && holds(o, 4, y.channels);
     },
     [](In<T> o) { convolve_halve(o.map(0), o.perhaps(1), o.map(2), o.data(3), o.data(4), o.window(0), o.number(9)); }},
    // 34 halved_weight_gradient: dw, dbias, dy, y, winners, x; window, kind of activation, by_sample
    {6, 11, 1u << 1,
     [](In<T> o) {
         const auto &y = o.map(3), &x = o.map(5);
         const std::ptrdiff_t kernel = kernel_size(y, x, o.window(0)), apart = o.number(10) ? y.samples : 1;
         return slides_halved(y, x, o.window(0), o.number(9)) && same(o.map(2), y) && same(o.map(4), y) && kernel > 0 &&
                holds(o, 0, kernel * apart) && holds(o, 1, y.channels * apart);
     },
     [](In<T> o) {
         halved_weight_gradient(o.data(0), o.data(1), o.map(2), o.map(3), o.map(4), o.map(5), o.window(0), o.number(9),
                                o.number(10));
     }},
};

// ---- reading and running

constexpr int kMemories = 2;  // arrays that hold many maps; each other array is one map

// A map's row of numbers, checked to lie within its array.
template <typename T>
bool read_map(Map<T>& map, const std::int64_t* n, const Program& p) {
    for (int i = 0; i < kMapNumbers; ++i)
        if (n[i] < 0 || (i != 1 && n[i] > kLargest)) return false;
    if (n[0] >= p.array_count || !n[2] || !n[3] || n[3] > kWidth<T> || (n[3] & (n[3] - 1))) return false;
    map = {static_cast<T*>(p.arrays[n[0]]) + n[1],
           int(n[2]),
           int(n[3]),
           int(n[4]),
           int(n[5]),
           int(n[6]),
           int(n[7]),
           int(n[8]),
           int(n[9]),
           int(n[10])};
    const std::int64_t rows = n[7] + n[5] + n[8], columns = n[9] + n[6] + n[10];
    const double cells = double(rows) * columns + (n[3] > 1 && !(rows & columns & 1));  // as Map::channel
    const double size = double(map.blocks()) * map.channels * cells * n[3];
    // vectors of several columns are loaded whole, also at a row's end
    const double spare = n[3] == 1 && map.bare() ? 0 : kWidth<T>;
    if (n[0] >= kMemories) return double(n[1]) + size == double(p.sizes[n[0]]);
    return double(n[1]) + size + spare <= double(p.sizes[n[0]]);
}

template <typename T>
const char* run(const Program& p) {
    constexpr int operations = sizeof kOperations<T> / sizeof *kOperations<T>;
    Map<T>* maps = memory<Map<T>>(kMaps, p.map_count);
    for (std::ptrdiff_t i = 0; i < p.map_count; ++i)
        if (!read_map(maps[i], p.maps + i * kMapNumbers, p)) return "an array has another size than its map";
    for (const bool check : {true, false})
        for (std::ptrdiff_t at = 0; at < p.code_size;) {
            if (p.code[at] < 0 || p.code[at] >= operations) return "there is no such operation";
            const Operation<T>& op = kOperations<T>[p.code[at]];
            if (at + 1 + op.maps + op.numbers > p.code_size) return "the program ends within an operation";
            const Operands<T> o{maps, p.code + at + 1, p.code + at + 1 + op.maps};
            if (check) {
                for (int i = 0; i < op.maps; ++i)
                    if (o.maps[i] >= p.map_count || o.maps[i] < -int(op.optional >> i & 1))
                        return "there is no such map";
                if (!op.fits(o)) return "an operation's maps do not fit";
            } else {
                op.run(o);
            }
            at += 1 + op.maps + op.numbers;
        }
    return nullptr;
}

}  // namespace
}  // namespace sharedgrad
