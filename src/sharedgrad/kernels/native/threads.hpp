// A small pool of threads: a short spin, then sleep. Work is handed out in tasks that the caller has cut by
// shape, never by the number of threads, so that the number never changes a result.
#pragma once

#include <cstddef>

namespace sharedgrad {

// Run task(context, 0) … task(context, count − 1) on the pool and the calling thread; serial inside another region.
// What a task throws comes out here, once no task is running any more.
void run_tasks(int count, void (*task)(void* context, int index), void* context);

void set_threads(int count);

// This thread's own memory number `slot`, at least `bytes` long and aligned to 64; kept from call to call.
void* scratch(int slot, std::size_t bytes);

namespace {  // one copy for each translation unit: they are compiled for different instruction sets

constexpr double kWorthwhile =
    1e5;  // operations, some microseconds: below, calling a thread takes longer than the work

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
