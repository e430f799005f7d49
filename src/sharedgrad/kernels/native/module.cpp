// The Python module sharedgrad.kernels.native._native: thin, on CPython's stable ABI, arrays through the buffer
// protocol. The Python side (native/*.py) makes the outputs and says what has which shape; here types, order and
// numbers of elements are checked, so that no wrong argument reads beyond an array.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "methods.hpp"
#include "threads.hpp"

namespace {

using namespace sharedgrad;

const Table* table = &baseline();

// Of the instruction sets that this processor has, each is better than those before it.
std::vector<const Table*> tables() {
    std::vector<const Table*> found{&baseline()};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        found.push_back(&avx2());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        found.push_back(&avx512());
#endif
    return found;
}

PyObject* failure(PyObject* kind, const char* message) {
    PyErr_SetString(kind, message);
    return nullptr;
}

// The arguments of one call: arrays, then whole numbers, each with a letter as its name. An array's shape is made of
// these letters and of digits, and "?" before it says that None will do.
struct Arguments {
    Py_buffer views[6] = {};
    int numbers[5];
    char kind = 0;  // of the arrays' elements

    ~Arguments() {
        for (auto& view : views) PyBuffer_Release(&view);  // nothing happens to one that was never filled
    }

    // False, with a Python error set, if they are not what they must be: the kernels trust the sizes.
    bool read(PyObject* const* objects, Py_ssize_t count, const char* names, const char* const* shapes, int arrays) {
        const int all = arrays + int(std::strlen(names));
        if (count != all) return PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", all, count);
        for (int i = arrays; i < all; ++i) {
            const Py_ssize_t number = PyLong_AsSsize_t(objects[i]);
            if (PyErr_Occurred()) return false;
            if (number < 0 || number > kLargest) return failure(PyExc_ValueError, "a size is out of range");
            numbers[i - arrays] = int(number);
        }
        for (int i = 0; i < arrays; ++i) {
            if (*shapes[i] == '?' && objects[i] == Py_None) continue;
            Py_buffer& view = views[i];
            if (PyObject_GetBuffer(objects[i], &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) return false;
            const char own = view.format ? view.format[0] : '?';
            if ((own != 'f' && own != 'd') || (kind && own != kind))
                return failure(PyExc_TypeError, "expected arrays of one type, float32 or float64");
            kind = own;
            double size = 1;  // a product of whole numbers may be too large for them
            for (const char* c = shapes[i] + (*shapes[i] == '?'); *c; ++c)
                size *= *c <= '9' ? *c - '0' : numbers[std::strchr(names, *c) - names];
            const Py_ssize_t found = view.len / view.itemsize;
            if (double(found) != size)
                return PyErr_Format(PyExc_ValueError, "array %d: expected %zd elements, got %zd", i,
                                    Py_ssize_t(std::min(size, 1e18)), found);
        }
        return true;
    }
};

// Call a kernel for the arrays' element type, without the interpreter's lock.
template <typename Kernel, std::size_t... Arrays, std::size_t... Numbers>
PyObject* call(PyObject* const* objects, Py_ssize_t count, const char* names, const char* const* shapes,
               const Kernel& kernel, std::index_sequence<Arrays...>, std::index_sequence<Numbers...>) {
    Arguments a;
    if (!a.read(objects, count, names, shapes, sizeof...(Arrays))) return nullptr;
    const auto run = [&](const auto& kernels, auto type) {
        kernel(kernels)(static_cast<decltype(type)*>(a.views[Arrays].buf)..., a.numbers[Numbers]...);
    };
    if (!carried_out(true, [&] { a.kind == 'f' ? run(table->f32, float()) : run(table->f64, double()); }))
        return nullptr;
    Py_RETURN_NONE;
}

// A kernel as a Python function: the names of its numbers, and the shapes of its arrays.
#define FUNCTION(name, names, ...)                                                                        \
    PyObject* name(PyObject*, PyObject* const* objects, Py_ssize_t count) {                               \
        constexpr const char* shapes[] = {__VA_ARGS__};                                                   \
        return call(                                                                                      \
            objects, count, names, shapes, [](const auto& k) { return k.name; },                          \
            std::make_index_sequence<std::size(shapes)>(), std::make_index_sequence<sizeof names - 1>()); \
    }

FUNCTION(blocks, "UBOI", "UBO", "UBI", "BOI")
FUNCTION(blocks_input_gradient, "UBOI", "UBI", "UBO", "BOI")
FUNCTION(outer_sum, "KUBOI", "KBOI", "KUBO", "KUBI")
FUNCTION(along_directions, "NGCS", "NGS", "NG8S", "NGCS", "GC8")
static_assert(kDirections == 8, "as in these shapes");
FUNCTION(channel_uses, "NCS", "NS", "NS", "NC", "NCS", "?NCS", "3C")
FUNCTION(softmax, "NC", "NC", "NC")
FUNCTION(softmax_backward, "NC", "NC", "NC", "NC")

// Lanes of a vector of elements of this many bytes.
PyObject* lanes(PyObject*, PyObject* itemsize) {
    const Py_ssize_t bytes = PyLong_AsSsize_t(itemsize);
    if (PyErr_Occurred()) return nullptr;
    return PyLong_FromLong(bytes == 4 ? table->f32.lanes : table->f64.lanes);
}

PyObject* threads(PyObject*, PyObject* count) {
    const Py_ssize_t n = PyLong_AsSsize_t(count);
    if (PyErr_Occurred()) return nullptr;
    Py_BEGIN_ALLOW_THREADS;
    set_threads(static_cast<int>(n));
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

PyObject* filter_minimally(PyObject*, PyObject* on) {
    const int truth = PyObject_IsTrue(on);
    if (truth < 0) return nullptr;
    minimal_filtering = truth;
    Py_RETURN_NONE;
}

PyObject* instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(table->name); }

// A tuple of the names name(0), name(1), … up to the first null.
template <typename Name>
PyObject* names(const Name& name) {
    Py_ssize_t count = 0;
    while (name(int(count))) ++count;
    PyObject* const tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; ++i) {
        PyObject* const text = PyUnicode_FromString(name(int(i)));
        if (!text || PyTuple_SetItem(tuple, i, text)) {
            Py_DecRef(tuple);
            return nullptr;
        }
    }
    return tuple;
}

PyObject* operations(PyObject*, PyObject*) { return names(table->operation_name); }

PyObject* activations(PyObject*, PyObject*) {
    return names([](int i) { return i < kActivationCount ? kActivationNames[i] : nullptr; });
}

PyObject* paddings(PyObject*, PyObject*) {
    return names([](int i) { return i < kPaddingCount ? kPaddingNames[i] : nullptr; });
}

// For tests: use the named instruction set if this processor has it.
PyObject* choose(PyObject*, PyObject* name) {
    for (const Table* known : tables()) {
        if (!PyUnicode_Check(name) || PyUnicode_CompareWithASCIIString(name, known->name)) continue;
        table = known;
        Py_RETURN_NONE;
    }
    return failure(PyExc_ValueError, "this processor does not have that instruction set");
}

#define METHOD(name) {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(name)), METH_FASTCALL, nullptr}

PyMethodDef methods[] = {
    METHOD(blocks),
    METHOD(blocks_input_gradient),
    METHOD(outer_sum),
    METHOD(along_directions),
    METHOD(channel_uses),
    METHOD(softmax),
    METHOD(softmax_backward),
    {"lanes", lanes, METH_O, "Lanes of a vector of elements of this many bytes."},
    {"set_threads", threads, METH_O, "Use this many threads."},
    {"filter_minimally", filter_minimally, METH_O, "Whether minimal filtering may serve."},
    {"operations", operations, METH_NOARGS, "The names of a program's operations, in the order of their codes."},
    {"activations", activations, METH_NOARGS, "The names of activations, in the order of their codes."},
    {"paddings", paddings, METH_NOARGS, "The names of padding modes, in the order of their codes."},
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set in use."},
    {"choose", choose, METH_O, "Use the named instruction set, if this processor has it."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled kernels.", -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

std::atomic<bool> sharedgrad::minimal_filtering{true};

const sharedgrad::Table& sharedgrad::table_in_use() { return *table; }

PyMODINIT_FUNC PyInit__native() {
    table = tables().back();
    PyObject* module = PyModule_Create(&definition);
    if (module && (PyModule_AddFunctions(module, training_methods) || PyModule_AddFunctions(module, program_methods) ||
                   add_memory(module) || PyModule_AddIntConstant(module, "LARGEST", kLargest) ||
                   PyModule_AddIntConstant(module, "DIRECTIONS", kDirections) ||
                   PyModule_AddIntConstant(module, "MOST_CELLS", kMostCells))) {
        Py_DecRef(module);
        return nullptr;
    }
    return module;
}
