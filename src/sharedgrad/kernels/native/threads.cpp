#include "threads.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace sharedgrad {
namespace {

constexpr auto kSpin = std::chrono::microseconds(500);  // longer than the gaps within a training step
constexpr int kMostThreads = 256;                       // as MOST_THREADS in kernels/threads.py

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

thread_local bool working = false;  // this thread is working on a task

struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
};

// Workers join a region while it is open. The caller closes it when no task is left and waits for those who are inside:
// a worker that another process keeps from its processor is not missed, its share is taken by the others.
class Pool {
  public:
    explicit Pool(int workers) {
        threads_.reserve(workers);
        try {
            for (int i = 0; i < workers; ++i) threads_.emplace_back([this, i] { work(i + 1); });
        } catch (const std::system_error&) {
            // the system gives no more threads: those that there are do the same work
        }
    }

    ~Pool() {
        stop_ = true;
        open();
        for (auto& thread : threads_) thread.join();
    }

    void run(int count, void (*task)(void*, int), void* context) {
        task_ = task;
        context_ = context;
        const std::int64_t shares = threads_.size() + 1;
        for (int i = 0; i < shares; ++i) {
            shares_[i].next.store(int(count * i / shares), std::memory_order_relaxed);
            shares_[i].end = int(count * (i + 1) / shares);
        }
        open();
        take(0);
        ++region_;  // closed: who is not inside by now stays outside
        for (int spins = 0; inside_ > 0; ++spins)
            spins < 2000 ? relax() : std::this_thread::yield();  // a worker may have lost its processor
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

  private:
    void open() {
        {
            std::lock_guard lock(mutex_);
            ++region_;
        }
        wake_.notify_all();
    }

    // Whether a region is open that is not the one seen last.
    bool called(unsigned seen) const {
        const unsigned region = region_;
        return region % 2 && region != seen;
    }

    // The thread's own share of the tasks first: what it has written in one region it finds in its cache in the next.
    void take(int own) {
        working = true;
        const int shares = static_cast<int>(threads_.size()) + 1;
        try {
            for (int s = own; s < own + shares; ++s) {
                Share& share = shares_[s % shares];
                for (int i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) task_(context_, i);
            }
        } catch (...) {  // the others may still be working on what the caller owns: it hears of it when all are done
            std::lock_guard lock(mutex_);
            error_ = std::current_exception();
        }
        working = false;
    }

    void work(int own) {
        for (unsigned seen = 0;;) {
            const auto until = std::chrono::steady_clock::now() + kSpin;
            while (!called(seen) && std::chrono::steady_clock::now() < until)
                for (int i = 0; i < 64 && !called(seen); ++i) relax();
            if (!called(seen)) {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return called(seen); });
            }
            if (stop_) return;
            ++inside_;  // before it looks: whoever closes the region after that waits
            seen = region_;
            if (seen % 2) take(own);
            --inside_;
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<unsigned> region_{0};  // odd while one is open
    std::atomic<int> inside_{0};       // workers
    Share shares_[kMostThreads];
    void (*task_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::exception_ptr error_;
    std::atomic<bool> stop_{false};
};

std::mutex owner;  // one parallel region at a time; a second one that comes meanwhile runs serially
std::atomic<int> threads{1};
Pool* pool = nullptr;

// A forked child has none of its parent's threads: leave the old pool alone and start afresh.
void after_fork() {
    pool = nullptr;
    new (&owner) std::mutex;
}

struct Scratch {
    void* memory = nullptr;
    std::size_t size = 0;
    ~Scratch() { std::free(memory); }
};

thread_local Scratch slots[kSlotCount];

}  // namespace

void* scratch(Slot slot, std::size_t bytes) {
    Scratch& own = slots[slot];
    if (own.size < bytes) {
        std::free(own.memory);
        own.size = 0;
        const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
        own.memory = std::aligned_alloc(64, rounded);
        if (!own.memory) throw std::bad_alloc();
        own.size = rounded;
    }
    return own.memory;
}

void set_threads(int count) {
    std::lock_guard lock(owner);
    if (count == threads) return;
    delete pool;
    pool = nullptr;
    threads = count;
}

void run_tasks(int count, void (*task)(void*, int), void* context) {
    static const int registered = pthread_atfork(nullptr, nullptr, after_fork);
    (void)registered;
    std::unique_lock lock(owner, std::defer_lock);
    if (count < 2 || threads < 2 || working || !lock.try_lock()) {
        for (int i = 0; i < count; ++i) task(context, i);
        return;
    }
    if (!pool) pool = new Pool(threads - 1);
    pool->run(count, task, context);
}

}  // namespace sharedgrad
