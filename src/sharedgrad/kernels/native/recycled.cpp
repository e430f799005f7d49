// Memory for results that comes back: Memory(bytes) is a writable buffer, aligned to a cache line. When the last view
// of it is gone the block is kept for the next result of its size, so that a training step, which makes the same arrays
// again and again, does not ask the system for new pages, and finds these in the cache.

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include "methods.hpp"

namespace {

// Sizes are rounded up to 4 steps between one power of two and the next: at most a quarter is unused.
constexpr std::size_t kLeast = 4096;
constexpr int kSteps = 4, kSizes = 40 * kSteps;
constexpr std::size_t kHuge = std::size_t(2) << 20;   // the system's large pages
constexpr Py_ssize_t kLargest = Py_ssize_t(1) << 50;  // far more than there is, and no sum of sizes overflows
constexpr std::size_t kMostFree = std::size_t(1) << 30;

std::size_t bytes_of(int number) {
    const std::size_t power = kLeast << (number / kSteps);
    return power + power / kSteps * (number % kSteps);
}

int number_for(std::size_t bytes) {  // of the least size that is enough
    int number = 0;
    while (bytes_of(number + kSteps) < bytes) number += kSteps;
    while (bytes_of(number) < bytes) ++number;
    return number;
}

struct Block {
    Block* next;
};

// Blocks that are not in use, size by size. Never more bytes than were in use at once, nor than kMostFree.
struct Store {
    std::mutex mutex;
    Block* free[kSizes + 1] = {};
    std::size_t free_bytes = 0, used = 0, most_used = 0;
};
Store store;

void* from_system(std::size_t bytes) {
    const bool huge = bytes >= 2 * kHuge;
    const std::size_t alignment = huge ? kHuge : 64;
    void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
#if defined(MADV_HUGEPAGE)
    if (block && huge) madvise(block, bytes, MADV_HUGEPAGE);  // advice: that it fails changes nothing
#endif
    return block;
}

// ---- the Python type

using namespace sharedgrad;

struct Memory {
    PyObject ob_base;
    void* data;
    Py_ssize_t size;
};

void destroy(PyObject* object) {
    auto* self = reinterpret_cast<Memory*>(object);
    give_back(self->data, static_cast<std::size_t>(self->size));
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DecRef(reinterpret_cast<PyObject*>(type));
}

int get_buffer(PyObject* object, Py_buffer* view, int flags) {
    auto* self = reinterpret_cast<Memory*>(object);
    return PyBuffer_FillInfo(view, object, self->data, self->size, 0, flags);
}

PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
    {0, nullptr},
};

PyType_Spec spec = {"sharedgrad.kernels.native._native.Memory", sizeof(Memory), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

PyTypeObject* memory_type = nullptr;

PyObject* memory(PyObject*, PyObject* nbytes) {
    const Py_ssize_t size = PyLong_AsSsize_t(nbytes);
    if (PyErr_Occurred()) return nullptr;
    if (size < 0 || size > kLargest) return PyErr_NoMemory();
    void* const data = take(static_cast<std::size_t>(size));
    if (!data) return PyErr_NoMemory();
    Memory* const self = PyObject_New(Memory, memory_type);
    if (!self) {
        give_back(data, static_cast<std::size_t>(size));
        return nullptr;
    }
    self->data = data;
    self->size = size;
    return reinterpret_cast<PyObject*>(self);
}

PyMethodDef methods[] = {
    {"memory", memory, METH_O,
     "A writable buffer of so many bytes, aligned to 64; what it holds at first is arbitrary."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void* sharedgrad::take(std::size_t bytes) {
    const int number = number_for(bytes);
    bytes = bytes_of(number);
    std::lock_guard lock(store.mutex);
    void* memory = store.free[number];
    if (memory)
        store.free[number] = store.free[number]->next, store.free_bytes -= bytes;
    else if (!(memory = from_system(bytes)))
        return nullptr;
    store.used += bytes;
    store.most_used = std::max(store.most_used, store.used);
    return memory;
}

void sharedgrad::give_back(void* memory, std::size_t bytes) {
    const int number = number_for(bytes);
    bytes = bytes_of(number);
    std::lock_guard lock(store.mutex);
    store.used -= bytes;
    const std::size_t most = std::min(kMostFree, store.most_used);
    for (int size = kSizes; size >= 0; --size)  // largest first; what came last is needed soonest
        for (Block*& free = store.free[size]; free && store.free_bytes + bytes > most;
             store.free_bytes -= bytes_of(size))
            std::free(std::exchange(free, free->next));
    if (bytes > most) return std::free(memory);
    store.free[number] = new (memory) Block{store.free[number]};
    store.free_bytes += bytes;
}

int sharedgrad::add_memory(PyObject* module) {
    // a child process must not find the store locked by a thread that it does not have
    static const auto unlock = [] { store.mutex.unlock(); };
    static const int registered = pthread_atfork([] { store.mutex.lock(); }, unlock, unlock);
    (void)registered;
    memory_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    return memory_type ? PyModule_AddFunctions(module, methods) : -1;
}
