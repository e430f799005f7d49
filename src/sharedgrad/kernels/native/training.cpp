// Losses and optimizers' steps as Python functions. As in module.cpp, types and numbers of elements are checked here,
// so that no wrong argument reads or writes beyond an array.

#include <vector>

#include "methods.hpp"

namespace {

using namespace sharedgrad;

// cross_entropy(upstream, scores, labels, classes, smoothing, count): the sum of the losses; IndexError where a label
// is no class.
PyObject* cross_entropy(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    if (!expect(count, 6)) return nullptr;
    const Py_ssize_t classes = PyLong_AsSsize_t(objects[3]);
    const double smoothing = PyFloat_AsDouble(objects[4]), divisor = PyFloat_AsDouble(objects[5]);
    if (PyErr_Occurred()) return nullptr;
    Buffers buffers(3);
    Py_ssize_t sizes[3];
    char kinds[3];
    void* upstream = buffers.add(objects[0], "fd", &sizes[0], &kinds[0], true);
    void* scores = upstream ? buffers.add(objects[1], "fd", &sizes[1], &kinds[1]) : nullptr;
    void* labels = scores ? buffers.add(objects[2], "lq", &sizes[2], &kinds[2]) : nullptr;
    if (!labels) return nullptr;
    const Py_ssize_t rows = sizes[2];
    constexpr Py_ssize_t most = 1 << 30;
    if (kinds[0] != kinds[1] || classes < 1 || classes > most || rows > most || sizes[0] != rows * classes ||
        sizes[1] != rows * classes) {
        PyErr_SetString(PyExc_ValueError, "upstream, scores and labels do not belong together");
        return nullptr;
    }
    const auto* numbers = static_cast<const std::int64_t*>(labels);
    for (Py_ssize_t i = 0; i < rows; ++i)
        if (numbers[i] < 0 || numbers[i] >= classes) {
            PyErr_SetString(PyExc_IndexError, "a label is no class");
            return nullptr;
        }
    const auto run = [&](const auto& kernels, auto type) {
        using T = decltype(type);
        return kernels.cross_entropy(static_cast<T*>(upstream), static_cast<const T*>(scores), numbers, int(rows),
                                     int(classes), smoothing, divisor);
    };
    double loss = 0;
    const Table& table = table_in_use();
    if (!carried_out(true, [&] { loss = kinds[0] == 'f' ? run(table.f32, float()) : run(table.f64, double()); }))
        return nullptr;
    return PyFloat_FromDouble(loss);
}

// The lists of arrays of an update: values, old values, gradients, then new and old ones of each state; each list has
// one array for each parameter.
constexpr int kMostLists = 7;

bool is_output(Py_ssize_t list) { return list == 0 || (list > 2 && list % 2); }

// So many lists of as many arrays as the first has; false, with a Python error set, if they are not.
bool are_lists(PyObject* lists, Py_ssize_t least, Py_ssize_t most) {
    const Py_ssize_t count = PyList_Check(lists) ? PyList_Size(lists) : 0;
    bool good = least <= count && count <= most && count % 2;
    for (Py_ssize_t l = 0; good && l < count; ++l) {
        PyObject* const list = PyList_GetItem(lists, l);
        good = PyList_Check(list) && PyList_Size(list) == PyList_Size(PyList_GetItem(lists, 0));
    }
    if (!good) PyErr_SetString(PyExc_ValueError, "expected lists of as many arrays");
    return good;
}

// Whether nobody but its owner and the list itself holds any array that is to be written over.
bool held_here_alone(PyObject* lists) {
    constexpr Py_ssize_t holders = 2;
    for (Py_ssize_t l = 0; l < PyList_Size(lists); ++l) {
        PyObject* const list = PyList_GetItem(lists, l);
        for (Py_ssize_t i = 0; is_output(l) && i < PyList_Size(list); ++i)
            if (Py_REFCNT(PyList_GetItem(list, i)) != holders) return false;
    }
    return true;
}

// step(kernels, updates, count) on all parameters; `steps` is null or a list of their numbers of steps. In place it
// keeps the interpreter's lock, so that nobody gets hold of an array meanwhile; False where somebody does hold one, in
// which case nothing has changed.
template <typename Step>
PyObject* update(PyObject* lists, PyObject* steps, bool in_place, const Step& step) {
    if (in_place && !held_here_alone(lists)) Py_RETURN_FALSE;
    const Py_ssize_t count = PyList_Size(lists), length = PyList_Size(PyList_GetItem(lists, 0));
    Buffers buffers(count * length);
    std::vector<Update<float>> singles;
    std::vector<Update<double>> doubles;
    for (Py_ssize_t i = 0; i < length; ++i) {
        void* memory[kMostLists] = {};
        Py_ssize_t sizes[kMostLists];
        char kinds[kMostLists];
        for (Py_ssize_t l = 0; l < count; ++l) {
            PyObject* const array = PyList_GetItem(PyList_GetItem(lists, l), i);
            memory[l] = array ? buffers.add(array, "fd", &sizes[l], &kinds[l], !in_place && is_output(l)) : nullptr;
            if (!memory[l]) return nullptr;
            if (sizes[l] != sizes[0] || kinds[l] != kinds[0]) {
                PyErr_Format(PyExc_ValueError, "parameter %zd: arrays of different types or sizes", i);
                return nullptr;
            }
        }
        PyObject* const own = steps ? PyList_GetItem(steps, i) : nullptr;
        const double own_steps = own ? PyFloat_AsDouble(own) : 0;
        if (PyErr_Occurred()) return nullptr;
        const auto add = [&](auto& updates, auto type) {
            using T = decltype(type);
            const auto at = [&](int l) { return static_cast<T*>(memory[l]); };
            updates.push_back({at(0), at(1), at(2), {at(3), at(5)}, {at(4), at(6)}, sizes[0], own_steps});
        };
        kinds[0] == 'f' ? add(singles, float()) : add(doubles, double());
    }
    const Table& table = table_in_use();
    const bool done = carried_out(!in_place, [&] {
        step(table.f32, singles.data(), int(singles.size()));
        step(table.f64, doubles.data(), int(doubles.size()));
    });
    if (!done) return nullptr;
    Py_RETURN_TRUE;
}

// sgd(lists, lr, momentum, weight decay, nesterov, in place), with velocities as the only state, or none
PyObject* sgd(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    if (!expect(count, 6) || !are_lists(objects[0], 3, 5)) return nullptr;
    const SGDSettings settings{PyFloat_AsDouble(objects[1]), PyFloat_AsDouble(objects[2]), PyFloat_AsDouble(objects[3]),
                               PyObject_IsTrue(objects[4]) == 1};
    if (PyErr_Occurred()) return nullptr;
    return update(objects[0], nullptr, objects[5] == Py_True,
                  [&](const auto& k, const auto* updates, int n) { k.sgd(updates, n, settings); });
}

// adam(lists, steps, lr, β₁, β₂, ε, weight decay, decoupled, in place), with means and squares as states
PyObject* adam(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    if (!expect(count, 9) || !are_lists(objects[0], 7, 7)) return nullptr;
    double numbers[5];
    for (int i = 0; i < 5; ++i) numbers[i] = PyFloat_AsDouble(objects[2 + i]);
    const AdamSettings settings{numbers[0], numbers[1], numbers[2],
                                numbers[3], numbers[4], PyObject_IsTrue(objects[7]) == 1};
    if (PyErr_Occurred()) return nullptr;
    return update(objects[0], objects[1], objects[8] == Py_True,
                  [&](const auto& k, const auto* updates, int n) { k.adam(updates, n, settings); });
}

}  // namespace

PyMethodDef sharedgrad::training_methods[] = {
    method("cross_entropy", cross_entropy),
    method("sgd", sgd),
    method("adam", adam),
    {nullptr, nullptr, 0, nullptr},
};
