// The operations that programs are made of: name, numbers of maps and of numbers, which maps may be missing, what must
// hold, what happens. Above each row stand its maps, then its numbers; a window comes first among these.
#pragma once

#include "checks.hpp"
#include "choose_convolution.hpp"
#include "dense.hpp"
#include "maps.hpp"
#include "moving.hpp"
#include "norm.hpp"
#include "persample.hpp"
#include "pool_2x2.hpp"

namespace sharedgrad {
namespace {

template <typename T>
struct Operation {
    const char* name;  // by which the Python side knows it
    int maps, numbers;
    unsigned optional;  // bit i: map i may be missing (−1)
    bool (*fits)(const Operands<T>& o);
    void (*run)(const Operands<T>& o);
};

template <typename T>
using In = const Operands<T>&;

// Rows that have what must hold in common.

template <typename T>
bool normalizes(In<T> o) {
    return o.alike(0, 1, 2) && o.hold(o[0].logical().channels, 3, 4, 5, 6);
}

template <typename T, bool Own>
void normalize_with(In<T> o) {
    normalize<T, Own>(o[0], o[1], o.perhaps(2), o.data(3), o.data(4), o.data(5), o.data(6), o.number(0), o.real(1));
}

// Map 0 has the kernel's gradient and map 1 its bias's, where the last of `numbers` says whether they are by sample.
template <typename T>
bool holds_gradients(In<T> o, std::ptrdiff_t kernel, const Map<T>& dy, int by_sample) {
    const std::ptrdiff_t apart = o.number(by_sample) ? dy.samples : 1;
    return kernel > 0 && o.hold(kernel * apart, 0) && o.hold(dy.channels * apart, 1);
}

template <typename T>
bool pads(In<T> o, const Map<T>& padded, const Map<T>& x) {
    return same_channels(padded, x) && pads(o.number(1), x.height, padded.height, o.number(0)) &&
           pads(o.number(2), x.width, padded.width, o.number(0));
}

template <typename T>
bool anything(In<T>) {
    return true;
}

template <typename T>
constexpr Operation<T> kOperations[] = {
    // to, from
    {"relayout", 2, 0, 0,
     [](In<T> o) {
         const Map<T> a = o[0].logical(), b = o[1].logical();
         const auto size = [](const Map<T>& m) { return std::ptrdiff_t(m.channels) * m.height * m.width; };
         const bool cells = a.channels == b.channels && a.height == b.height && a.width == b.width;
         const bool flat = (is_vector(a) || is_vector(b)) && size(a) == size(b);
         const bool order = is_plain(a) || is_plain(b);
         return a.samples == b.samples && (cells || flat) && order;
     },
     [](In<T> o) { relayout(o[0], o[1]); }},
    // y, x, w, bias, w as prepare_kernel leaves it; window, relu
    {"conv", 5, 10, 1u << 3 | 1u << 4,
     [](In<T> o) {
         const Map<T> y = o[0].logical(), x = o[1].logical();
         return convolves(y, x, o.window()) && o.hold(kernel_size(y, x, o.window()), 2) && o.hold(y.channels, 3) &&
                o.hold(prepared_size<T>(y.channels, x.channels, o.window()), 4);
     },
     [](In<T> o) { convolve(o[0], o[1], o.data(2), o.data(3), o.data(4), o.window(), o.number(9)); }},
    // to, w; window, filters, channels, height and width of outputs
    {"prepare_kernel", 2, 13, 0,
     [](In<T> o) {
         const Window g = o.window();
         for (int i = 9; i < 13; ++i)
             if (o.number(i) < 1 || o.number(i) > kLargest / 64) return false;
         return g.kernel_h > 0 && g.kernel_h <= kMostCells && g.kernel_w > 0 && g.kernel_w <= kMostCells &&
                o.hold(prepared_size<T>(o.number(9), o.number(10), g), 0) &&
                o.hold(std::ptrdiff_t(o.number(9)) * o.number(10) * g.kernel_h * g.kernel_w, 1);
     },
     [](In<T> o) {
         prepare_kernel(o.data(0), o.data(1), o.number(9), o.number(10), o.number(11), o.number(12), o.window());
     }},
    // dx, dy, w, output of the ReLU that dx goes through; window, add
    {"conv_input_gradient", 4, 10, 1u << 3,
     [](In<T> o) {
         const Map<T> dx = o[0].logical(), dy = o[1].logical();
         return slides_back(dx, dy, o.window()) && o.hold(kernel_size(dy, dx, o.window()), 2) && o.alike(0, 3);
     },
     [](In<T> o) { input_gradient(o[0], o[1], o.data(2), o.perhaps(3), o.window(), o.number(9)); }},
    // dw, dbias, dy, x; window, by_sample
    {"conv_weight_gradient", 4, 10, 1u << 1,
     [](In<T> o) {
         const Map<T> dy = o[2].logical(), x = o[3].logical();
         return (o.number(9) ? slides<T> : convolves<T>)(dy, x, o.window()) &&
                holds_gradients<T>(o, kernel_size(dy, x, o.window()), dy, 9);
     },
     [](In<T> o) { weight_gradient(o.data(0), o.data(1), o[2], o[3], o.window(), o.number(9)); }},
    // sums, dy; by_sample
    {"channel_sums", 2, 1, 0,
     [](In<T> o) {
         const Map<T> dy = o[1].logical();
         return o.hold(std::ptrdiff_t(dy.channels) * (o.number(0) ? dy.samples : 1), 0);
     },
     [](In<T> o) { channel_sums(o.data(0), o[1], o.number(0)); }},
    // y, x; kind
    {"activate", 2, 1, 0, [](In<T> o) { return o.alike(0, 1); }, [](In<T> o) { activate(o[0], o[1], o.number(0)); }},
    // dx, dy, y; kind
    {"activate_backward", 3, 1, 0, [](In<T> o) { return o.alike(0, 1, 2); },
     [](In<T> o) { activate_backward(o[0], o[1], o[2], o.number(0)); }},
    // y, a, b; kind of activation
    {"add", 3, 1, 0, [](In<T> o) { return o.alike(0, 1, 2); }, [](In<T> o) { add(o[0], o[1], o[2], o.number(0)); }},
    // y, a, b
    {"multiply", 3, 0, 0, [](In<T> o) { return o.alike(0, 1, 2); }, [](In<T> o) { multiply(o[0], o[1], o[2]); }},
    // map
    {"clear_margins", 1, 0, 0, anything<T>, [](In<T> o) { clear_margins(o[0]); }},
    // y, x; window
    {"max_pool", 2, 9, 0, [](In<T> o) { return slides_pool(o[0], o[1], o.window()); },
     [](In<T> o) { max_pool(o[0], o[1], o.window()); }},
    // dx, dy, x, y; window, relu
    {"max_pool_backward", 4, 10, 0,
     [](In<T> o) { return slides_pool(o[1], o[0], o.window()) && o.alike(0, 2) && o.alike(1, 3); },
     [](In<T> o) { max_pool_backward(o[0], o[1], o[2], o[3], o.window(), o.number(9)); }},
    // y, x; window, whether padding counts
    {"avg_pool", 2, 10, 0, [](In<T> o) { return slides_pool(o[0], o[1], o.window()); },
     [](In<T> o) { avg_pool(o[0], o[1], o.window(), o.number(9)); }},
    // dx, dy; window, whether padding counts
    {"avg_pool_backward", 2, 10, 0, [](In<T> o) { return slides_pool(o[1], o[0], o.window()); },
     [](In<T> o) { avg_pool_backward(o[0], o[1], o.window(), o.number(9)); }},
    // y, x
    {"global_mean", 2, 0, 0, [](In<T> o) { return vector_of(o[0], o[1]); }, [](In<T> o) { global_mean(o[0], o[1]); }},
    // dx, dy
    {"global_mean_backward", 2, 0, 0, [](In<T> o) { return vector_of(o[1], o[0]); },
     [](In<T> o) { global_mean_backward(o[0], o[1]); }},
    // y, x, shortcut, mean, variance, weight, bias; relu, epsilon; mean and variance are written
    {"batch_normalize", 7, 2, 1u << 2, normalizes<T>, normalize_with<T, true>},
    // the same with given mean and variance
    {"normalize", 7, 2, 1u << 2, normalizes<T>, normalize_with<T, false>},
    // dx, dweight, dbias, dy, x, mean, variance, weight, bias; training, relu, epsilon
    {"normalize_backward", 9, 3, 1u << 0,
     [](In<T> o) { return o.alike(3, 0, 4) && o.hold(o[3].logical().channels, 1, 2, 5, 6, 7, 8); },
     [](In<T> o) {
         normalize_backward(o.perhaps(0), o.data(1), o.data(2), o[3], o[4], o.data(5), o.data(6), o.data(7), o.data(8),
                            o.number(0), o.number(1), o.real(2));
     }},
    // y, x, w, bias; relu
    {"linear", 4, 1, 1u << 3,
     [](In<T> o) {
         return o.vectors(0, 1) && o.hold(std::ptrdiff_t(o[0].channels) * o[1].channels, 2) && o.hold(o[0].channels, 3);
     },
     [](In<T> o) {
         linear(o[0], o[1], o.data(2), o.data(3));
         if (o.number(0)) activate(o[0], o[0], kReLU);
     }},
    // dx, dy, w
    {"linear_input_gradient", 3, 0, 0,
     [](In<T> o) { return o.vectors(0, 1) && o.hold(std::ptrdiff_t(o[0].channels) * o[1].channels, 2); },
     [](In<T> o) { linear_input_gradient(o[0], o[1], o.data(2)); }},
    // dw, dbias, dy, x; by_sample
    {"linear_weight_gradient", 4, 1, 1u << 1,
     [](In<T> o) {
         return o.vectors(2, 3) && holds_gradients<T>(o, std::ptrdiff_t(o[2].channels) * o[3].channels, o[2], 0);
     },
     [](In<T> o) { linear_weight_gradient(o.data(0), o.data(1), o[2], o[3], o.number(0)); }},
    // next w, dbias, w, dy, x, (lr, decay)
    {"linear_descent", 6, 0, 1u << 1,
     [](In<T> o) {
         return o.vectors(3, 4) && o[3].samples == 1 && o.hold(o[3].channels, 1) && o.hold(2, 5) &&
                o.hold(std::ptrdiff_t(o[3].channels) * o[4].channels, 0, 2);
     },
     [](In<T> o) { linear_descent(o.data(0), o.data(1), o.data(2), o[3], o[4], o.data(5)[0], o.data(5)[1]); }},
    // map
    {"zero", 1, 0, 0, anything<T>, [](In<T> o) { std::fill_n(o.data(0), o[0].size(), T(0)); }},
    // squares, map
    {"add_squares", 2, 0, 0, [](In<T> o) { return o.hold_squares(o[1].samples, 0); },
     [](In<T> o) { add_squares(o.squares(0), o[1]); }},
    // squares, dy, x; whether there is a bias
    {"add_linear_squares", 3, 1, 0, [](In<T> o) { return o.vectors(1, 2) && o.hold_squares(o[1].samples, 0); },
     [](In<T> o) { add_linear_squares(o.squares(0), o[1], o[2], o.number(0)); }},
    // squares, dy, x, gradients; window
    {"add_kernel_squares", 4, 9, 1u << 3,
     [](In<T> o) {
         const Map<T>* const gradients = o.perhaps(3);
         return slides(o[1], o[2], o.window()) && kernel_size(o[1], o[2], o.window()) > 0 &&
                o.hold_squares(o[1].samples, 0) &&
                (!gradients || (gradients->samples == o[1].samples && gradients->lanes == o[1].lanes &&
                                is_cell(*gradients) && gradients->channels == kernel_size(o[1], o[2], o.window())));
     },
     [](In<T> o) { add_kernel_squares(o.squares(0), o[1], o[2], o.window(), o.perhaps(3)); }},
    // squares, dy, x; window
    {"add_gram_squares", 3, 9, 0,
     [](In<T> o) {
         return slides(o[1], o[2], o.window()) && kernel_size(o[1], o[2], o.window()) > 0 && o[1].lanes == kWidth<T> &&
                o.hold_squares(o[1].samples, 0);
     },
     [](In<T> o) { add_gram_squares(o.squares(0), o[1], o[2], o.window()); }},
    // factors, norms, squares, max_norm (in float64)
    {"clip_factors", 4, 0, 0,
     [](In<T> o) {
         return o.vectors(1) && o[1].samples == 1 && o.vectors(0) && o[0].size() >= o[1].channels &&
                o.hold_squares(o[1].channels, 2) && o.hold_squares(1, 3);
     },
     [](In<T> o) { clip_factors(o[0], o[1], o.squares(2), *o.squares(3)); }},
    // map, factors
    {"scale_samples", 2, 0, 0, [](In<T> o) { return o.factors(1, o[0]); },
     [](In<T> o) { scale_samples(o[0], o.data(1)); }},
    // sum, map, factors
    {"weighted_sum", 3, 0, 0, [](In<T> o) { return is_cell(o[1]) && o.hold(o[1].channels, 0) && o.factors(2, o[1]); },
     [](In<T> o) { weighted_sum(o.data(0), o[1], o.data(2)); }},
    // dweight, dbias, dy, x, y, mean, variance; epsilon
    {"normalize_gradients", 7, 1, 1u << 0 | 1u << 1 | 1u << 4,
     [](In<T> o) {
         const Map<T> dy = o[2].logical();
         return o.alike(2, 3, 4) && o.hold(std::ptrdiff_t(dy.channels) * dy.samples, 0, 1) && o.hold(dy.channels, 5, 6);
     },
     [](In<T> o) {
         normalize_gradients(o.data(0), o.data(1), o[2], o[3], o.perhaps(4), o.data(5), o.data(6), o.real(0));
     }},
    // y, winners, x; kind of activation
    {"pool_2x2", 3, 1, 1u << 1, [](In<T> o) { return is_pooled_2x2(o[0], o[2]) && o.alike(0, 1); },
     [](In<T> o) { pool_2x2(o[0], o.perhaps(1), o[2], o.number(0)); }},
    // dx, sums, dy, y, winners; kind of activation
    {"pool_2x2_backward", 5, 1, 1u << 1,
     [](In<T> o) { return is_pooled_2x2(o[2], o[0]) && o.alike(2, 3, 4) && o.hold(o[0].channels, 1); },
     [](In<T> o) { pool_2x2_backward(o[0], o.data(1), o[2], o[3], o[4], o.number(0)); }},
    // y, winners, x, w, bias; window, kind of activation
    {"conv_pool_2x2", 5, 10, 1u << 1 | 1u << 4,
     [](In<T> o) {
         return slides_pooled(o[0], o[2], o.window(), o.number(9)) && o.alike(0, 1) &&
                o.hold(kernel_size(o[0], o[2], o.window()), 3) && o.hold(o[0].channels, 4);
     },
     [](In<T> o) { convolve_pool_2x2(o[0], o.perhaps(1), o[2], o.data(3), o.data(4), o.window(), o.number(9)); }},
    // dw, dbias, dy, y, winners, x; window, kind of activation, by_sample
    {"pooled_weight_gradient", 6, 11, 1u << 1,
     [](In<T> o) {
         return slides_pooled(o[3], o[5], o.window(), o.number(9)) && o.alike(3, 2, 4) &&
                holds_gradients<T>(o, kernel_size(o[3], o[5], o.window()), o[3], 10);
     },
     [](In<T> o) {
         pooled_weight_gradient(o.data(0), o.data(1), o[2], o[3], o[4], o[5], o.window(), o.number(9), o.number(10));
     }},
    // y, x; padding mode, top, left
    {"pad", 2, 3, 0, [](In<T> o) { return pads<T>(o, o[0], o[1]); },
     [](In<T> o) { pad(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
    // dx, dy; padding mode, top, left
    {"pad_backward", 2, 3, 0, [](In<T> o) { return pads<T>(o, o[1], o[0]); },
     [](In<T> o) { pad_backward(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
    // to, from; first channel in either, how many
    {"copy_channels", 2, 3, 0,
     [](In<T> o) {
         const auto has = [&](int i) {
             return o.number(i) >= 0 && o.number(2) >= 0 && o.number(i) <= o[i].logical().channels - o.number(2);
         };
         const bool order = o[0].by_channel() == o[1].by_channel() && (o[0].by_channel() || o[0].lanes == o[1].lanes);
         return o[0].logical().samples == o[1].logical().samples && order && o[0].height == o[1].height &&
                o[0].width == o[1].width && has(0) && has(1);
     },
     [](In<T> o) { copy_channels(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
};

constexpr int kOperationCount = sizeof kOperations<float> / sizeof *kOperations<float>;

}  // namespace
}  // namespace sharedgrad
