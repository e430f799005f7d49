// The operations that programs are made of: name, how many maps and numbers, what happens. What these are, which maps
// may be missing and what must hold of them stands in operations.py, in the same words; nothing here looks at it again.
#pragma once

#include "channel_uses.hpp"
#include "choose_convolution.hpp"
#include "dense.hpp"
#include "depthwise.hpp"
#include "directions.hpp"
#include "losses.hpp"
#include "maps.hpp"
#include "moving.hpp"
#include "norm.hpp"
#include "persample.hpp"
#include "pool_2x2.hpp"
#include "updates.hpp"

namespace sharedgrad {
namespace {

// The maps and numbers that one operation takes.
template <typename T>
struct Operands {
    const Map<T>* all;            // the program's
    const std::int64_t* maps;     // of each of the operation's maps, its number in `all`, or −1
    const std::int64_t* numbers;  // the operation's own

    const Map<T>& operator[](int i) const { return all[maps[i]]; }
    const Map<T>* perhaps(int i) const { return maps[i] < 0 ? nullptr : &all[maps[i]]; }
    T* data(int i) const { return maps[i] < 0 ? nullptr : all[maps[i]].data; }
    double* doubles(int i) const { return reinterpret_cast<double*>(data(i)); }  // in memory of T, as what follows
    const std::int64_t* integers(int i) const { return reinterpret_cast<const std::int64_t*>(data(i)); }
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
};

template <typename T>
using In = const Operands<T>&;

template <typename T>
struct Operation {
    const char* name;  // by which the Python side knows it
    int maps, numbers;
    void (*run)(In<T> o);
    bool updates = false;  // whether it writes over a parameter's array, or its state's
};

template <typename T, bool Own>
void normalize_with(In<T> o) {
    normalize<T, Own>(o[0], o[1], o.perhaps(2), o.data(3), o.data(4), o.data(5), o.data(6), o.number(0), o.real(1));
}

template <typename T>
constexpr Operation<T> kOperations[] = {
    {"relayout", 2, 0, [](In<T> o) { relayout(o[0], o[1]); }},
    {"conv", 5, 10,
     [](In<T> o) {
         carry_out<T>({kOutputs, o[0], o[1], o.window(), o.data(2), o.data(3), o.data(4), o.number(9) != 0});
     }},
    {"prepare_kernel", 2, 13,
     [](In<T> o) {
         prepare_kernel(o.data(0), o.data(1), o.number(9), o.number(10), o.number(11), o.number(12), o.window());
     }},
    {"conv_input_gradient", 4, 10,
     [](In<T> o) {
         Convolution<T> c{kInputGradient, o[1], o[0], o.window(), o.data(2)};
         c.add = o.number(9), c.through = o.perhaps(3);
         carry_out<T>(c);
     }},
    {"conv_weight_gradient", 4, 10,
     [](In<T> o) {
         Convolution<T> c{o.number(9) ? kBySample : kWeightGradient, o[2], o[3], o.window()};
         c.dw = o.data(0), c.dbias = o.data(1);
         carry_out<T>(c);
     }},
    {"channel_sums", 2, 1, [](In<T> o) { channel_sums(o.data(0), o[1], o.number(0)); }},
    {"activate", 2, 1, [](In<T> o) { activate(o[0], o[1], o.number(0)); }},
    {"activate_backward", 3, 1, [](In<T> o) { activate_backward(o[0], o[1], o[2], o.number(0)); }},
    {"add", 3, 1, [](In<T> o) { add(o[0], o[1], o[2], o.number(0)); }},
    {"multiply", 3, 0, [](In<T> o) { multiply(o[0], o[1], o[2]); }},
    {"clear_margins", 1, 0, [](In<T> o) { clear_margins(o[0]); }},
    {"max_pool", 2, 9, [](In<T> o) { max_pool(o[0], o[1], o.window()); }},
    {"max_pool_backward", 4, 10, [](In<T> o) { max_pool_backward(o[0], o[1], o[2], o[3], o.window(), o.number(9)); }},
    {"avg_pool", 2, 10, [](In<T> o) { avg_pool(o[0], o[1], o.window(), o.number(9)); }},
    {"avg_pool_backward", 2, 10, [](In<T> o) { avg_pool_backward(o[0], o[1], o.window(), o.number(9)); }},
    {"global_mean", 2, 0, [](In<T> o) { global_mean(o[0], o[1]); }},
    {"global_mean_backward", 2, 0, [](In<T> o) { global_mean_backward(o[0], o[1]); }},
    {"batch_normalize", 7, 2, normalize_with<T, true>},
    {"normalize", 7, 2, normalize_with<T, false>},
    {"normalize_backward", 9, 3,
     [](In<T> o) {
         normalize_backward(o.perhaps(0), o.data(1), o.data(2), o[3], o[4], o.data(5), o.data(6), o.data(7), o.data(8),
                            o.number(0), o.number(1), o.real(2));
     }},
    {"linear", 4, 1,
     [](In<T> o) {
         linear(o[0], o[1], o.data(2), o.data(3));
         if (o.number(0)) activate(o[0], o[0], kReLU);
     }},
    {"linear_input_gradient", 3, 0, [](In<T> o) { linear_input_gradient(o[0], o[1], o.data(2)); }},
    {"linear_weight_gradient", 4, 1,
     [](In<T> o) { linear_weight_gradient(o.data(0), o.data(1), o[2], o[3], o.number(0)); }},
    {"zero", 1, 0, [](In<T> o) { std::fill_n(o.data(0), o[0].size(), T(0)); }},
    {"add_squares", 2, 0, [](In<T> o) { add_squares(o.doubles(0), o[1]); }},
    {"add_linear_squares", 3, 1, [](In<T> o) { add_linear_squares(o.doubles(0), o[1], o[2], o.number(0)); }},
    {"add_kernel_squares", 4, 9,
     [](In<T> o) { add_kernel_squares(o.doubles(0), o[1], o[2], o.window(), o.perhaps(3)); }},
    {"add_gram_squares", 3, 9, [](In<T> o) { add_gram_squares(o.doubles(0), o[1], o[2], o.window()); }},
    {"clip_factors", 4, 0, [](In<T> o) { clip_factors(o[0], o[1], o.doubles(2), *o.doubles(3)); }},
    {"scale_samples", 2, 0, [](In<T> o) { scale_samples(o[0], o.data(1)); }},
    {"weighted_sum", 3, 0, [](In<T> o) { weighted_sum(o.data(0), o[1], o.data(2)); }},
    {"normalize_gradients", 7, 1,
     [](In<T> o) {
         normalize_gradients(o.data(0), o.data(1), o[2], o[3], o.perhaps(4), o.data(5), o.data(6), o.real(0));
     }},
    {"pool_2x2", 3, 1, [](In<T> o) { pool_2x2(o[0], o.perhaps(1), o[2], o.number(0)); }},
    {"pool_2x2_backward", 5, 1, [](In<T> o) { pool_2x2_backward(o[0], o.data(1), o[2], o[3], o[4], o.number(0)); }},
    {"conv_pool_2x2", 5, 10,
     [](In<T> o) { convolve_pool_2x2(o[0], o.perhaps(1), o[2], o.data(3), o.data(4), o.window(), o.number(9)); }},
    {"pooled_weight_gradient", 6, 11,
     [](In<T> o) {
         pooled_weight_gradient(o.data(0), o.data(1), o[2], o[3], o[4], o[5], o.window(), o.number(9), o.number(10));
     }},
    {"pad", 2, 3, [](In<T> o) { pad(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
    {"pad_backward", 2, 3, [](In<T> o) { pad_backward(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
    {"copy_channels", 2, 3, [](In<T> o) { copy_channels(o[0], o[1], o.number(0), o.number(1), o.number(2)); }},
    {"blocks", 3, 0, [](In<T> o) { blocks(o[0], o[1], o.data(2)); }},
    {"blocks_input_gradient", 3, 0, [](In<T> o) { blocks_input_gradient(o[0], o[1], o.data(2)); }},
    {"outer_sum", 3, 0, [](In<T> o) { outer_sum(o[0], o[1], o[2]); }},
    {"along_directions", 4, 0, [](In<T> o) { along_directions(o.data(0), o.data(1), o[2], o.data(3)); }},
    {"channel_uses", 6, 0, [](In<T> o) { channel_uses(o.data(0), o.data(1), o.data(2), o[3], o.data(4), o.data(5)); }},
    {"softmax", 2, 0, [](In<T> o) { softmax(o[0], o[1]); }},
    {"softmax_backward", 3, 0, [](In<T> o) { softmax_backward(o[0], o[1], o[2]); }},
    {"cross_entropy", 4, 2,
     [](In<T> o) { cross_entropy(o[0], o[1], o.integers(2), o.doubles(3) + o.number(1), o.number(0)); }},
    {"sgd", 6, 2,
     [](In<T> o) { sgd(o[0], o.data(1), o.data(2), o.doubles(3) + o.number(1), o.data(4), o.data(5), o.number(0)); },
     true},
    {"adam", 8, 3,
     [](In<T> o) {
         adam(o[0], o.data(1), o.data(2), o.doubles(3) + o.number(1), o.data(4), o.data(5), o.data(6), o.data(7),
              o.doubles(3)[o.number(2)], o.number(0));
     },
     true},
    {"linear_descent", 6, 1,
     [](In<T> o) { linear_descent(o.data(0), o.data(1), o.data(2), o[3], o[4], o.doubles(5) + o.number(0)); }, true},
};

constexpr int kOperationCount = sizeof kOperations<float> / sizeof *kOperations<float>;

}  // namespace
}  // namespace sharedgrad
