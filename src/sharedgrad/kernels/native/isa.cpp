// All kernels, compiled once for each instruction set; SHAREDGRAD_ISA is its name.

#include "channel_uses.hpp"
#include "directions.hpp"
#include "losses.hpp"
#include "program.hpp"
#include "updates.hpp"

#define STRING(x) #x
#define NAME(x) STRING(x)

namespace sharedgrad {
namespace {

template <typename T>
constexpr Kernels<T> kKernels = {
    kWidth<T>,           {check<T>, run<T>},  blocks<T>,       blocks_input_gradient<T>,
    outer_sum<T>,        along_directions<T>, channel_uses<T>, softmax<T>,
    softmax_backward<T>, cross_entropy<T>,    sgd<T>,          adam<T>,
};

const char* operation_name(int code) { return code < kOperationCount ? kOperations<float>[code].name : nullptr; }

}  // namespace

const Table& SHAREDGRAD_ISA() {
    static constexpr Table table = {NAME(SHAREDGRAD_ISA), operation_name, kKernels<float>, kKernels<double>};
    return table;
}

}  // namespace sharedgrad
