// What the files that make up the Python module share.
#pragma once

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <vector>

#include "kernels.hpp"

namespace sharedgrad {

const Table& table_in_use();

extern PyMethodDef program_methods[];  // programs.cpp
int add_memory(PyObject* module);      // recycled.cpp; −1 with a Python error set

// Memory that is used again (recycled.cpp): so many bytes or null, and back with as many.
void* take(std::size_t bytes);
void give_back(void* memory, std::size_t bytes);

// The arrays of one call, released at its end.
class Buffers {
  public:
    explicit Buffers(Py_ssize_t most) { views_.reserve(most); }
    Buffers(const Buffers&) = delete;
    ~Buffers() {
        for (auto& view : views_) PyBuffer_Release(&view);
    }

    // The array's memory if its elements are of one of the `kinds`; else null, with a Python error set.
    void* add(PyObject* object, const char* kinds, Py_ssize_t* size, char* kind, bool output = false) {
        Py_buffer view;
        if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (output ? PyBUF_WRITABLE : 0)))
            return nullptr;
        views_.push_back(view);
        *kind = view.format ? view.format[0] : 'B';
        *size = view.len / view.itemsize;
        if (std::find(kinds, kinds + 2, *kind) == kinds + 2) {
            PyErr_SetString(PyExc_TypeError, "an array has elements of another type than expected");
            return nullptr;
        }
        static double nothing;  // an empty array may have no memory at all
        return view.buf ? view.buf : &nothing;
    }

  private:
    std::vector<Py_buffer> views_;
};

// Run function(), without the interpreter's lock if it is to be `released`; false, with a Python error set, if there is
// no memory, or where an operation cannot go on.
template <typename Function>
bool carried_out(bool released, const Function& function) {
    PyObject* error = nullptr;
    const char* message = "out of memory";
    PyThreadState* const state = released ? PyEval_SaveThread() : nullptr;
    try {
        function();
    } catch (const std::bad_alloc&) {
        error = PyExc_MemoryError;
    } catch (const std::out_of_range&) {
        error = PyExc_IndexError;
        message = "a label is no class";
    } catch (const std::domain_error&) {
        error = PyExc_FloatingPointError;
        message = "a loss is not finite";
    }
    if (state) PyEval_RestoreThread(state);
    if (error) PyErr_SetString(error, message);
    return !error;
}

inline bool expect(Py_ssize_t count, Py_ssize_t expected) {
    if (count != expected) PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, count);
    return count == expected;
}

inline PyMethodDef method(const char* name, PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr};
}

}  // namespace sharedgrad
