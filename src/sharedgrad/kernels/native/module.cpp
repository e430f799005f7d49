// The Python module sharedgrad.kernels.native._native: thin, on CPython's stable ABI, arrays through the buffer
// protocol. The Python side (native/*.py) makes the outputs and says what has which shape; here types, order and
// numbers of elements are checked, so that no wrong argument reads beyond an array.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <cstring>

#include "kernels.hpp"
#include "methods.hpp"
#include "threads.hpp"

namespace {

using namespace sharedgrad;

const Table* table = &baseline();

const Table* best() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return &avx512();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return &avx2();
#endif
    return &baseline();
}

constexpr int kMostArrays = 6, kMostNumbers = 17;

// The arguments of one call: arrays (or None), then whole numbers.
class Arguments {
  public:
    Arguments(PyObject* const* objects, Py_ssize_t count, int arrays, int numbers) : arrays_(arrays) {
        if (count != arrays + numbers) {
            PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", arrays + numbers, count);
            return;
        }
        for (int i = 0; i < arrays; ++i) {
            if (objects[i] == Py_None) continue;
            if (PyObject_GetBuffer(objects[i], &views_[i], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) return;
            const char kind = views_[i].format ? views_[i].format[0] : '?';
            if (kind_ && kind != kind_) {
                PyErr_SetString(PyExc_TypeError, "arrays of different types");
                return;
            }
            kind_ = kind;
        }
        if (kind_ != 'f' && kind_ != 'd') {
            PyErr_SetString(PyExc_TypeError, "expected arrays of float32 or float64");
            return;
        }
        for (int i = 0; i < numbers; ++i) {
            numbers_[i] = PyLong_AsSsize_t(objects[arrays + i]);
            if (PyErr_Occurred()) return;
            if (numbers_[i] < 0 || numbers_[i] > kLargest) {
                PyErr_SetString(PyExc_ValueError, "a size is out of range");
                return;
            }
        }
        good_ = true;
    }
    ~Arguments() {
        for (auto& view : views_) PyBuffer_Release(&view);  // nothing happens to one that was never filled
    }

    bool is_float() const { return kind_ == 'f'; }
    Py_ssize_t number(int i) const { return numbers_[i]; }
    Py_ssize_t size(int i) const { return views_[i].obj ? views_[i].len / views_[i].itemsize : 0; }
    template <typename T>
    T* array(int i) const {
        return static_cast<T*>(views_[i].buf);
    }

    // Whether every array holds as many elements as it must: the kernels trust their sizes.
    template <typename... Sizes>
    bool hold(Sizes... expected) const {
        const Py_ssize_t sizes[] = {expected...};
        for (int i = 0; good_ && i < arrays_; ++i)
            if (size(i) != sizes[i]) {
                PyErr_Format(PyExc_ValueError, "array %d: expected %zd elements, got %zd", i, sizes[i], size(i));
                return false;
            }
        return good_;
    }

  private:
    Py_buffer views_[kMostArrays] = {};
    Py_ssize_t numbers_[kMostNumbers] = {};
    int arrays_;
    char kind_ = 0;
    bool good_ = false;
};

// Call function(kernels, type tag) for the arrays' element type, without the interpreter's lock.
template <typename Function>
PyObject* call(const Arguments& a, const Function& function) {
    const auto both = [&] { a.is_float() ? function(table->f32, float()) : function(table->f64, double()); };
    if (!carried_out(true, both)) return nullptr;
    Py_RETURN_NONE;
}

// A kernel as a Python function of arrays and numbers; `hold` says how many elements each array must have.
#define FUNCTION(name, arrays, numbers, hold, ...)                          \
    PyObject* name(PyObject*, PyObject* const* objects, Py_ssize_t count) { \
        const Arguments a(objects, count, arrays, numbers);                 \
        const auto n = [&](int i) { return a.number(i); };                  \
        (void)n;                                                            \
        if (!a.hold) return nullptr;                                        \
        return call(a, [&](const auto& k, auto type) {                      \
            using T = decltype(type);                                       \
            const auto p = [&](int i) { return a.array<T>(i); };            \
            k.name(__VA_ARGS__);                                            \
        });                                                                 \
    }

FUNCTION(blocks, 3, 4, hold(n(0) * n(1) * n(2), n(0) * n(1) * n(3), n(1) * n(2) * n(3)), p(0), p(1), p(2), n(0), n(1),
         n(2), n(3))
FUNCTION(blocks_input_gradient, 3, 4, hold(n(0) * n(1) * n(3), n(0) * n(1) * n(2), n(1) * n(2) * n(3)), p(0), p(1),
         p(2), n(0), n(1), n(2), n(3))
FUNCTION(outer_sum, 3, 5, hold(n(0) * n(2) * n(3) * n(4), n(0) * n(1) * n(2) * n(3), n(0) * n(1) * n(2) * n(4)), p(0),
         p(1), p(2), n(0), n(1), n(2), n(3), n(4))

FUNCTION(along_directions, 4, 4,
         hold(n(0) * n(1) * n(3), n(0) * n(1) * n(3) * kDirections, n(0) * n(1) * n(2) * n(3),
              n(1) * n(2) * kDirections),
         p(0), p(1), p(2), p(3), n(0), n(1), n(2), n(3))

// the last number: 1 with x, 0 without
FUNCTION(channel_uses, 6, 4,
         hold(n(0) * n(2), n(0) * n(2), n(0) * n(1), n(0) * n(1) * n(2), n(0) * n(1) * n(2) * n(3), n(1) * 3), p(0),
         p(1), p(2), p(3), p(4), p(5), n(0), n(1), n(2))

FUNCTION(softmax, 2, 2, hold(n(0) * n(1), n(0) * n(1)), p(0), p(1), n(0), n(1))
FUNCTION(softmax_backward, 3, 2, hold(n(0) * n(1), n(0) * n(1), n(0) * n(1)), p(0), p(1), p(2), n(0), n(1))

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
    PyObject* bytes = PyUnicode_AsUTF8String(name);
    if (!bytes) return nullptr;
    const char* wanted = PyBytes_AsString(bytes);
    const Table* top = best();
    bool found = false;
#if defined(__x86_64__)
    const Table* known[] = {&baseline(), &avx2(), &avx512()};
#else
    const Table* known[] = {&baseline()};
#endif
    for (const Table* t : known) {
        if (!std::strcmp(t->name, wanted)) {
            table = t;
            found = true;
        }
        if (t == top) break;
    }
    Py_DecRef(bytes);
    if (!found) {
        PyErr_SetString(PyExc_ValueError, "this processor does not have that instruction set");
        return nullptr;
    }
    Py_RETURN_NONE;
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
    table = best();
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
