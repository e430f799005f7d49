// All kernels, compiled once for each instruction set; SHAREDGRAD_ISA is its name.

#include "program.hpp"

#define STRING(x) #x
#define NAME(x) STRING(x)

namespace sharedgrad {
namespace {

template <typename T>
constexpr Kernels<T> kKernels = {kWidth<T>, check<T>, run<T>};

const char* operation_name(int code) { return code < kOperationCount ? kOperations<float>[code].name : nullptr; }

}  // namespace

const Table& SHAREDGRAD_ISA() {
    static constexpr Table table = {NAME(SHAREDGRAD_ISA), operation_name, kKernels<float>, kKernels<double>};
    return table;
}

}  // namespace sharedgrad
