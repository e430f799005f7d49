// The Python module sharedgrad.kernels.native._native, on CPython's stable ABI: programs and memory (programs.cpp,
// recycled.cpp), and here the settings.

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

PyMethodDef methods[] = {
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
    if (module && (PyModule_AddFunctions(module, program_methods) || add_memory(module) ||
                   PyModule_AddIntConstant(module, "LARGEST", kLargest) ||
                   PyModule_AddIntConstant(module, "DIRECTIONS", kDirections) ||
                   PyModule_AddIntConstant(module, "MOST_CELLS", kMostCells))) {
        Py_DecRef(module);
        return nullptr;
    }
    return module;
}
