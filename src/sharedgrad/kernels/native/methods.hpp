// What the files that make up the Python module share.
#pragma once

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include "kernels.hpp"

namespace sharedgrad {

const Table& table_in_use();

extern PyMethodDef program_methods[];  // programs.cpp
int add_memory(PyObject* module);      // recycled.cpp; −1 with a Python error set

// Memory that is used again (recycled.cpp): so many bytes or null, and back with as many.
void* take(std::size_t bytes);
void give_back(void* memory, std::size_t bytes);

}  // namespace sharedgrad
