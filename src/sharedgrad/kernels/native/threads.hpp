// A small pool of threads: a short spin, then sleep. Work is handed out in tasks that the caller has cut by
// shape, never by the number of threads, so that the number never changes a result.
#pragma once

#include <cstddef>

namespace sharedgrad {

// Run task(context, 0) … task(context, count − 1) on the pool and the calling thread; serial inside another region.
// What a task throws comes out here, once no task is running any more.
void run_tasks(int count, void (*task)(void* context, int index), void* context);

void set_threads(int count);

// Memory of each thread's own, kept from call to call. scratch.hpp says who may take which slot. The caller is the
// thread that carries out a program; a worker is any thread that works on a task.
enum Slot {
    kTaps,     // where a window's cells lie; caller
    kPlaces,   // where their weights lie; caller
    kWeights,  // weights packed or transformed, or sums of a transformed weight gradient; caller or worker
    kInputs,   // maps in another order, or transformed; caller or worker
    kSums,     // sums that are not complete; worker
    kCells,    // outputs before they are pooled, or gradients after they are spread over windows; worker
    kParts,    // sums over parts of the samples, still to be added up; caller
    kDoubles,  // sums in float64, still to be added up; caller
    kSlotCount
};

// A slot's memory, at least `bytes` long and aligned to 64.
void* scratch(Slot slot, std::size_t bytes);

namespace {  // one copy for each translation unit: they are compiled for different instruction sets

constexpr double kWorthwhile = 1e5;  // operations, some microseconds: calling a thread for less takes longer

template <typename Task>
void parallel(int count, double operations, const Task& task) {
    if (operations < kWorthwhile) {
        for (int i = 0; i < count; ++i) task(i);
        return;
    }
    run_tasks(
        count, [](void* context, int index) { (*static_cast<const Task*>(context))(index); },
        const_cast<void*>(static_cast<const void*>(&task)));
}

}  // namespace
}  // namespace sharedgrad
