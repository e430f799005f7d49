// The operations that programs are made of: name, numbers of maps and of numbers, which maps may be missing, what must
// hold, what happens. Above each row stand its maps, then its numbers.
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
    // to, from
    {"relayout", 2, 0, 0,
     [](In<T> o) {
         const Map<T> a = o.map(0).logical(), b = o.map(1).logical();
         const bool cells = a.channels == b.channels && a.height == b.height && a.width == b.width;
         const auto size = [](const Map<T>& m) { return std::ptrdiff_t(m.channels) * m.height * m.width; };
         const bool flat = (is_vector(a) || is_vector(b)) && size(a) == size(b);
         const bool order = a.by_channel() == b.by_channel()
                                ? a.lanes == b.lanes || (!a.by_channel() && (a.lanes == 1 || b.lanes == 1))
                                : is_plain(a) || is_plain(b);
         return a.samples == b.samples && (cells || flat) && order;
     },
     [](In<T> o) { relayout(o.map(0), o.map(1)); }},
    // y, x, w, bias, w as prepare_kernel leaves it; window, relu
    {"conv", 5, 10, 1u << 3 | 1u << 4,
     [](In<T> o) {
         const Map<T> y = o.map(0).logical(), x = o.map(1).logical();
         return convolves(y, x, o.window(0)) && holds(o, 2, kernel_size(y, x, o.window(0))) &&
                holds(o, 3, y.channels) && holds(o, 4, prepared_size<T>(y.channels, x.channels, o.window(0)));
     },
     [](In<T> o) { convolve(o.map(0), o.map(1), o.data(2), o.data(3), o.data(4), o.window(0), o.number(9)); }},
    // to, w; filters, channels, height and width of outputs, window
    {"prepare_kernel", 2, 13, 0,
     [](In<T> o) {
         const Window g = o.window(4);
         for (int i = 0; i < 4; ++i)
             if (o.number(i) < 1 || o.number(i) > kLargest / 64) return false;
         return g.kernel_h > 0 && g.kernel_h <= kMostCells && g.kernel_w > 0 && g.kernel_w <= kMostCells &&
                holds(o, 0, prepared_size<T>(o.number(0), o.number(1), g)) &&
                holds(o, 1, std::ptrdiff_t(o.number(0)) * o.number(1) * g.kernel_h * g.kernel_w);
     },
     [](In<T> o) {
         prepare_kernel(o.data(0), o.data(1), o.number(0), o.number(1), o.number(2), o.number(3), o.window(4));
     }},
    // dx, dy, w, output of the ReLU that dx goes through; window, add
    {"conv_input_gradient", 4, 10, 1u << 3,
     [](In<T> o) {
         const Map<T> dx = o.map(0).logical(), dy = o.map(1).logical();
         return slides_back(dx, dy, o.window(0)) && holds(o, 2, kernel_size(dy, dx, o.window(0))) &&
                (!o.has(3) || same(o.map(0), o.map(3)));
     },
     [](In<T> o) { input_gradient(o.map(0), o.map(1), o.data(2), o.perhaps(3), o.window(0), o.number(9)); }},
    // dw, dbias, dy, x; window, by_sample
    {"conv_weight_gradient", 4, 10, 1u << 1,
     [](In<T> o) {
         const Map<T> dy = o.map(2).logical(), x = o.map(3).logical();
         const std::ptrdiff_t kernel = kernel_size(dy, x, o.window(0)), apart = o.number(9) ? dy.samples : 1;
         const auto fit = o.number(9) ? slides<T> : convolves<T>;
         return fit(dy, x, o.window(0)) && kernel > 0 && holds(o, 0, kernel * apart) &&
                holds(o, 1, dy.channels * apart);
     },
     [](In<T> o) { weight_gradient(o.data(0), o.data(1), o.map(2), o.map(3), o.window(0), o.number(9)); }},
    // sums, dy; by_sample
    {"channel_sums", 2, 1, 0,
     [](In<T> o) {
         const Map<T> dy = o.map(1).logical();
         return holds(o, 0, std::ptrdiff_t(dy.channels) * (o.number(0) ? dy.samples : 1));
     },
     [](In<T> o) { sums_of_channels(o.data(0), o.map(1), o.number(0)); }},
    // y, x; kind
    {"activate", 2, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)); },
     [](In<T> o) { activate(o.map(0), o.map(1), o.number(0)); }},
    // dx, dy, y; kind
    {"activate_backward", 3, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { activate_backward(o.map(0), o.map(1), o.map(2), o.number(0)); }},
    // y, a, b; kind of activation
    {"add", 3, 1, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { add(o.map(0), o.map(1), o.map(2), o.number(0)); }},
    // y, a, b
    {"multiply", 3, 0, 0, [](In<T> o) { return same(o.map(0), o.map(1)) && same(o.map(0), o.map(2)); },
     [](In<T> o) { multiply(o.map(0), o.map(1), o.map(2)); }},
    // map
    {"clear_margins", 1, 0, 0, [](In<T>) { return true; }, [](In<T> o) { clear_margins(o.map(0)); }},
    // y, x; window
    {"max_pool", 2, 9, 0, [](In<T> o) { return slides_pool(o.map(0), o.map(1), o.window(0)); },
     [](In<T> o) { max_pool(o.map(0), o.map(1), o.window(0)); }},
    // dx, dy, x, y; window, relu
    {"max_pool_backward", 4, 10, 0,
     [](In<T> o) {
         return slides_pool(o.map(1), o.map(0), o.window(0)) && same(o.map(0), o.map(2)) && same(o.map(1), o.map(3));
     },
     [](In<T> o) { max_pool_backward(o.map(0), o.map(1), o.map(2), o.map(3), o.window(0), o.number(9)); }},
    // y, x; window, whether padding counts
    {"avg_pool", 2, 10, 0, [](In<T> o) { return slides_pool(o.map(0), o.map(1), o.window(0)); },
     [](In<T> o) { avg_pool(o.map(0), o.map(1), o.window(0), o.number(9)); }},
    // dx, dy; window, whether padding counts
    {"avg_pool_backward", 2, 10, 0, [](In<T> o) { return slides_pool(o.map(1), o.map(0), o.window(0)); },
     [](In<T> o) { avg_pool_backward(o.map(0), o.map(1), o.window(0), o.number(9)); }},
    // y, x
    {"global_mean", 2, 0, 0, [](In<T> o) { return vector_of(o.map(0), o.map(1)); },
     [](In<T> o) { global_mean(o.map(0), o.map(1)); }},
    // dx, dy
    {"global_mean_backward", 2, 0, 0, [](In<T> o) { return vector_of(o.map(1), o.map(0)); },
     [](In<T> o) { global_mean_backward(o.map(0), o.map(1)); }},
    // y, x, shortcut, mean, variance, weight, bias; relu, epsilon; mean and variance are written
    {"batch_normalize", 7, 2, 1u << 2, normalizes<T>, normalize_with<T, true>},
    // the same with given mean and variance
    {"normalize", 7, 2, 1u << 2, normalizes<T>, normalize_with<T, false>},
    // dx, dweight, dbias, dy, x, mean, variance, weight, bias; training, relu, epsilon
    {"normalize_backward", 9, 3, 1u << 0,
     [](In<T> o) {
         for (int i : {1, 2, 5, 6, 7, 8})
             if (!holds(o, i, o.map(3).channels)) return false;
         return (!o.has(0) || same(o.map(0), o.map(3))) && same(o.map(4), o.map(3));
     },
     [](In<T> o) {
         normalize_backward(o.perhaps(0), o.data(1), o.data(2), o.map(3), o.map(4), o.data(5), o.data(6), o.data(7),
                            o.data(8), o.number(0), o.number(1), o.real(2));
     }},
    // y, x, w, bias; relu
    {"linear", 4, 1, 1u << 3,
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
    // dx, dy, w
    {"linear_input_gradient", 3, 0, 0,
     [](In<T> o) {
         const auto &dx = o.map(0), &dy = o.map(1);
         return is_vector(dx) && is_vector(dy) && dx.samples == dy.samples &&
                holds(o, 2, std::ptrdiff_t(dy.channels) * dx.channels);
     },
     [](In<T> o) {
         const auto &dx = o.map(0), &dy = o.map(1);
         linear_input_gradient(dx.data, dy.data, o.data(2), dx.samples, dx.channels, dy.channels);
     }},
    // dw, dbias, dy, x; by_sample
    {"linear_weight_gradient", 4, 1, 1u << 1,
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
    // next w, dbias, w, dy, x, (lr, decay)
    {"linear_descent", 6, 0, 1u << 1,
     [](In<T> o) {
         const auto &dy = o.map(3), &x = o.map(4);
         const std::ptrdiff_t size = std::ptrdiff_t(dy.channels) * x.channels;
         return is_vector(dy) && is_vector(x) && dy.samples == 1 && x.samples == 1 && holds(o, 0, size) &&
                holds(o, 1, dy.channels) && holds(o, 2, size) && holds(o, 5, 2);
     },
     [](In<T> o) {
         const auto &dy = o.map(3), &x = o.map(4);
         linear_descent(o.data(0), o.data(1), o.data(2), dy.data, x.data, x.channels, dy.channels, o.data(5)[0],
                        o.data(5)[1]);
     }},
    // map
    {"zero", 1, 0, 0, [](In<T>) { return true; }, [](In<T> o) { std::fill_n(o.data(0), o.map(0).size(), T(0)); }},
    // squares, map
    {"add_squares", 2, 0, 0, [](In<T> o) { return holds_squares(o, 0, o.map(1).samples); },
     [](In<T> o) { add_squares(squares(o, 0), o.map(1)); }},
    // squares, dy, x; whether there is a bias
    {"add_linear_squares", 3, 1, 0,
     [](In<T> o) {
         return is_vector(o.map(1)) && is_vector(o.map(2)) && o.map(1).samples == o.map(2).samples &&
                holds_squares(o, 0, o.map(1).samples);
     },
     [](In<T> o) { add_linear_squares(squares(o, 0), o.map(1), o.map(2), o.number(0)); }},
    // squares, dy, x, gradients; window
    {"add_kernel_squares", 4, 9, 1u << 3,
     [](In<T> o) {
         if (!slides(o.map(1), o.map(2), o.window(0))) return false;
         const std::ptrdiff_t kernel = kernel_size(o.map(1), o.map(2), o.window(0));
         const Map<T>* gradients = o.perhaps(3);
         return kernel > 0 && holds_squares(o, 0, o.map(1).samples) &&
                (!gradients ||
                 (gradients->samples == o.map(1).samples && gradients->lanes == o.map(1).lanes && gradients->bare() &&
                  gradients->channels == kernel && gradients->height * gradients->width == 1));
     },
     [](In<T> o) { add_kernel_squares(squares(o, 0), o.map(1), o.map(2), o.window(0), o.perhaps(3)); }},
    // squares, dy, x; window
    {"add_gram_squares", 3, 9, 0,
     [](In<T> o) {
         return slides(o.map(1), o.map(2), o.window(0)) && kernel_size(o.map(1), o.map(2), o.window(0)) > 0 &&
                o.map(1).lanes == kWidth<T> && holds_squares(o, 0, o.map(1).samples);
     },
     [](In<T> o) { add_gram_squares(squares(o, 0), o.map(1), o.map(2), o.window(0)); }},
    // factors, norms, squares, max_norm (in float64)
    {"clip_factors", 4, 0, 0,
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
    // map, factors
    {"scale_samples", 2, 0, 0, [](In<T> o) { return holds_factors(o, 1, o.map(0)); },
     [](In<T> o) { scale_samples(o.map(0), o.data(1)); }},
    // sum, map, factors
    {"weighted_sum", 3, 0, 0,
     [](In<T> o) {
         const auto& m = o.map(1);
         return m.bare() && m.height * m.width == 1 && holds(o, 0, m.channels) && holds_factors(o, 2, m);
     },
     [](In<T> o) { weighted_sum(o.data(0), o.map(1), o.data(2)); }},
    // dweight, dbias, dy, x, y, mean, variance; epsilon
    {"normalize_gradients", 7, 1, 1u << 0 | 1u << 1 | 1u << 4,
     [](In<T> o) {
         const auto& dy = o.map(2);
         for (int i : {0, 1, 5, 6})
             if (!holds(o, i, std::ptrdiff_t(dy.channels) * (i < 2 ? dy.samples : 1))) return false;
         return same(o.map(3), dy) && (!o.has(4) || same(o.map(4), dy));
     },
     [](In<T> o) {
         normalize_gradients(o.data(0), o.data(1), o.map(2), o.map(3), o.perhaps(4), o.data(5), o.data(6), o.real(0));
     }},
    // y, winners, x; kind of activation
    {"pool_2x2", 3, 1, 1u << 1,
     [](In<T> o) { return is_pooled_2x2(o.map(0), o.map(2)) && (!o.has(1) || same(o.map(1), o.map(0))); },
     [](In<T> o) { pool_2x2(o.map(0), o.perhaps(1), o.map(2), o.number(0)); }},
    // dx, sums, dy, y, winners; kind of activation
    {"pool_2x2_backward", 5, 1, 1u << 1,
     [](In<T> o) {
         return is_pooled_2x2(o.map(2), o.map(0)) && same(o.map(2), o.map(3)) && same(o.map(2), o.map(4)) &&
                holds(o, 1, o.map(0).channels);
     },
     [](In<T> o) { pool_2x2_backward(o.map(0), o.data(1), o.map(2), o.map(3), o.map(4), o.number(0)); }},
    // y, winners, x, w, bias; window, kind of activation
    {"conv_pool_2x2", 5, 10, 1u << 1 | 1u << 4,
     [](In<T> o) {
         const auto &y = o.map(0), &x = o.map(2);
         return slides_pooled(y, x, o.window(0), o.number(9)) && (!o.has(1) || same(o.map(1), y)) &&
                holds(o, 3, kernel_size(y, x, o.window(0))) && holds(o, 4, y.channels);
     },
     [](In<T> o) {
         convolve_pool_2x2(o.map(0), o.perhaps(1), o.map(2), o.data(3), o.data(4), o.window(0), o.number(9));
     }},
    // dw, dbias, dy, y, winners, x; window, kind of activation, by_sample
    {"pooled_weight_gradient", 6, 11, 1u << 1,
     [](In<T> o) {
         const auto &y = o.map(3), &x = o.map(5);
         const std::ptrdiff_t kernel = kernel_size(y, x, o.window(0)), apart = o.number(10) ? y.samples : 1;
         return slides_pooled(y, x, o.window(0), o.number(9)) && same(o.map(2), y) && same(o.map(4), y) && kernel > 0 &&
                holds(o, 0, kernel * apart) && holds(o, 1, y.channels * apart);
     },
     [](In<T> o) {
         pooled_weight_gradient(o.data(0), o.data(1), o.map(2), o.map(3), o.map(4), o.map(5), o.window(0), o.number(9),
                                o.number(10));
     }},
    // y, x; padding mode, top, left
    {"pad", 2, 3, 0,
     [](In<T> o) {
         const auto &y = o.map(0), &x = o.map(1);
         return same_channels(y, x) && pads(o.number(1), x.height, y.height, o.number(0)) &&
                pads(o.number(2), x.width, y.width, o.number(0));
     },
     [](In<T> o) { pad(o.map(0), o.map(1), o.number(0), o.number(1), o.number(2)); }},
    // dx, dy; padding mode, top, left
    {"pad_backward", 2, 3, 0,
     [](In<T> o) {
         const auto &dx = o.map(0), &dy = o.map(1);
         return same_channels(dx, dy) && pads(o.number(1), dx.height, dy.height, o.number(0)) &&
                pads(o.number(2), dx.width, dy.width, o.number(0));
     },
     [](In<T> o) { pad_backward(o.map(0), o.map(1), o.number(0), o.number(1), o.number(2)); }},
    // to, from; first channel in either, how many
    {"copy_channels", 2, 3, 0,
     [](In<T> o) {
         const auto &to = o.map(0), &from = o.map(1);
         const auto holds = [&](const Map<T>& m, int first) {
             return first >= 0 && o.number(2) >= 0 && first <= m.channels - o.number(2);
         };
         return to.samples == from.samples && to.lanes == from.lanes && to.height == from.height &&
                to.width == from.width && holds(to, o.number(0)) && holds(from, o.number(1));
     },
     [](In<T> o) { copy_channels(o.map(0), o.map(1), o.number(0), o.number(1), o.number(2)); }},
};

constexpr int kOperationCount = sizeof kOperations<float> / sizeof *kOperations<float>;

}  // namespace
}  // namespace sharedgrad
