// The Python module sharedgrad.kernels.native._native, on CPython's stable ABI: programs and memory (programs.cpp,
// recycled.cpp), and here the settings.

#include <string>
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

// For tests: use the named instruction set if this processor has it.
PyObject* choose(PyObject*, PyObject* name) {
    for (const Table* known : tables()) {
        if (!PyUnicode_Check(name) || PyUnicode_CompareWithASCIIString(name, known->name)) continue;
        table = known;
        Py_RETURN_NONE;
    }
    return PyErr_Format(PyExc_ValueError, "this processor does not have that instruction set");
}

PyMethodDef methods[] = {
    {"lanes", lanes, METH_O, "Lanes of a vector of elements of this many bytes."},
    {"set_threads", threads, METH_O, "Use this many threads."},
    {"filter_minimally", filter_minimally, METH_O, "Whether minimal filtering may serve."},
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
    std::string operations;
    for (int code = 0; const char* const name = table->operation_name(code); ++code) operations.append(name) += ' ';
    PyObject* module = PyModule_Create(&definition);
    if (module && (PyModule_AddFunctions(module, program_methods) || add_memory(module) ||
                   PyModule_AddIntConstant(module, "LARGEST", kLargest) ||
                   PyModule_AddIntConstant(module, "DIRECTIONS", kDirections) ||
                   PyModule_AddIntConstant(module, "MOST_CELLS", kMostCells) ||
                   PyModule_AddStringConstant(module, "OPERATIONS", operations.c_str()) ||
                   PyModule_AddStringConstant(module, "ACTIVATIONS", kActivations) ||
                   PyModule_AddStringConstant(module, "PADDINGS", kPaddings))) {
        Py_DecRef(module);
        return nullptr;
    }
    return module;
}
