// All kernels, compiled once for each instruction set; SHAREDGRAD_ISA is its name.

#include "conv.hpp"
#include "dense.hpp"
#include "losses.hpp"
#include "maps.hpp"
#include "updates.hpp"

#define STRING(x) #x
#define NAME(x) STRING(x)

namespace sharedgrad {
namespace {

template <typename T>
constexpr Kernels<T> kKernels = {
    conv<T>,
    conv_input_gradient<T>,
    conv_kernel_gradient<T>,
    sigmoid<T>,
    sigmoid_backward<T>,
    tanh_backward<T>,
    relu<T>,
    relu_backward<T>,
    max_pool<T>,
    max_pool_backward<T>,
    batch_statistics<T>,
    normalize<T>,
    scale_shift<T>,
    normalize_backward<T>,
    linear<T>,
    linear_input_gradient<T>,
    linear_weight_gradient<T>,
    blocks<T>,
    blocks_input_gradient<T>,
    outer_sum<T>,
    softmax<T>,
    softmax_backward<T>,
    tanh<T>,
    cross_entropy<T>,
    sgd<T>,
    adam<T>,
};

}  // namespace

const Table& SHAREDGRAD_ISA() {
    static constexpr Table table = {NAME(SHAREDGRAD_ISA), kKernels<float>, kKernels<double>};
    return table;
}

}  // namespace sharedgrad
