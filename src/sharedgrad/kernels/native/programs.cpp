// Programs (see program.hpp) for Python: checked when they are made, then carried out as often as one likes.

#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "methods.hpp"

namespace {

using namespace sharedgrad;

constexpr int kKept = 0, kTemporary = 1, kOutside = 2;  // the arrays of a program; all others are from outside
constexpr const char* kName = "sharedgrad program";

struct Made {
    char kind;  // of its arrays' elements
    std::ptrdiff_t (*run)(const Program& program, void* const* arrays, std::ptrdiff_t begin, bool before_updates);
    Program program;
};

Made* made(PyObject* capsule) { return static_cast<Made*>(PyCapsule_GetPointer(capsule, kName)); }

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

// The arrays of one run, released at its end.
struct Buffers {
    std::vector<Py_buffer> views;

    ~Buffers() {
        for (auto& view : views) PyBuffer_Release(&view);
    }

    // The memory of an array of such elements, and how many they are; or null with a Python error set.
    void* add(PyObject* object, char kind, Py_ssize_t* size) {
        Py_buffer view;
        if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) return nullptr;
        views.push_back(view);
        if (!view.format || *view.format != kind)
            return PyErr_Format(PyExc_TypeError, "an array has elements of another type than expected");
        *size = view.len / view.itemsize;
        static double nothing;  // an empty array may have no memory at all
        return view.buf ? view.buf : &nothing;
    }
};

// program(maps, code, bytes of an element, sizes), each list as the bytes of int64: with the instruction set in use
// now, whose lanes the maps have.
PyObject* program(PyObject*, PyObject* arguments) {
    const char* lists[3];
    Py_ssize_t bytes[3], itemsize;
    if (!PyArg_ParseTuple(arguments, "y#y#ny#", &lists[0], &bytes[0], &lists[1], &bytes[1], &itemsize, &lists[2],
                          &bytes[2]))
        return nullptr;
    PyObject* capsule = nullptr;
    const auto make = [&](const auto& kernels, char kind) {
        std::unique_ptr<Made> result(new Made{kind, kernels.run, {}});
        Program& own = result->program;
        std::vector<std::int64_t>* const to[] = {&own.maps, &own.code, &own.sizes};
        for (int i = 0; i < 3; ++i) {
            to[i]->resize(std::size_t(bytes[i]) / sizeof(std::int64_t));
            std::memcpy(to[i]->data(), lists[i], to[i]->size() * sizeof(std::int64_t));
        }
        if (const char* const problem = own.sizes.size() < kOutside ? "there is no array" : kernels.check(own))
            PyErr_SetString(PyExc_ValueError, problem);
        else if ((capsule = PyCapsule_New(result.get(), kName, [](PyObject* self) { delete made(self); })))
            result.release();
    };
    const Table& table = table_in_use();
    carried_out(false, [&] { itemsize == 4 ? make(table.f32, 'f') : make(table.f64, 'd'); });
    return capsule;
}

// Whether nobody holds any of these arrays but so many known holders.
bool held_by_them_alone(PyObject* arrays, Py_ssize_t holders) {
    for (Py_ssize_t i = 0; arrays && i < PyList_Size(arrays); ++i)
        if (Py_REFCNT(PyList_GetItem(arrays, i)) != holders) return false;
    return true;
}

// run(program, kept memory or None where nothing is kept, list of arrays from outside, list of those that its updates
// write over, if they do): with these, the updates keep the interpreter's lock, so that nobody gets hold of one
// meanwhile. False where somebody holds one besides its owner and the two lists; then nothing has been updated.
PyObject* run(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    if (count != 3 && count != 4) return PyErr_Format(PyExc_TypeError, "expected 3 or 4 arguments, got %zd", count);
    Made* const own = made(objects[0]);
    if (!own) return nullptr;
    const Program& p = own->program;
    const int outside = int(p.sizes.size()) - kOutside;
    PyObject *const list = objects[2], *const written_over = count == 4 ? objects[3] : nullptr;
    if (!PyList_Check(list) || PyList_Size(list) != outside)
        return PyErr_Format(PyExc_TypeError, "expected a list of %d arrays", outside);
    if (written_over && !PyList_Check(written_over)) return PyErr_Format(PyExc_TypeError, "expected a list of arrays");
    constexpr Py_ssize_t holders = 3;  // the owner and two lists; later the buffer besides
    if (!held_by_them_alone(written_over, holders)) Py_RETURN_FALSE;
    std::vector<void*> arrays(p.sizes.size());
    Buffers buffers;
    buffers.views.reserve(arrays.size());
    for (int i = 0; i < kOutside + outside; ++i) {
        if (i == kTemporary || (i == kKept && p.sizes[i] <= 0)) continue;
        PyObject* const array = i == kKept ? objects[1] : PyList_GetItem(list, i - kOutside);
        Py_ssize_t size;
        if (!array || !(arrays[i] = buffers.add(array, own->kind, &size))) return nullptr;
        if (i == kKept ? size < p.sizes[i] : size != p.sizes[i] && p.sizes[i] >= 0)
            return PyErr_Format(PyExc_ValueError, "an array has another size than its map");
    }
    const std::size_t bytes = std::size_t(p.sizes[kTemporary] + 1) * (own->kind == 'f' ? 4 : 8);
    void* const temporary = arrays[kTemporary] = take(bytes);
    if (!temporary) return PyErr_NoMemory();
    std::ptrdiff_t at = 0;
    bool done = carried_out(true, [&] { at = own->run(p, arrays.data(), 0, written_over); });
    const bool alone = held_by_them_alone(written_over, holders + 1);
    if (done && alone && written_over) done = carried_out(false, [&] { own->run(p, arrays.data(), at, false); });
    give_back(temporary, bytes);
    return done ? PyBool_FromLong(alone) : nullptr;
}

}  // namespace

PyMethodDef sharedgrad::program_methods[] = {
    {"program", program, METH_VARARGS, nullptr},
    {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
