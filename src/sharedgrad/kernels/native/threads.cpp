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

thread_local bool inside = false;  // this thread is working on a task

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
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
            region_.fetch_add(kNext);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    void run(int count, void (*task)(void*, int), void* context) {
        task_ = task;
        context_ = context;
        const int shares = static_cast<int>(threads_.size()) + 1;
        for (int i = 0; i < shares; ++i) {
            shares_[i].next.store(int(std::int64_t(count) * i / shares), std::memory_order_relaxed);
            shares_[i].end = int(std::int64_t(count) * (i + 1) / shares);
        }
        {
            std::lock_guard lock(mutex_);
            region_.fetch_add(kNext + kOpen, std::memory_order_release);
        }
        wake_.notify_all();
        take(0);
        region_.fetch_sub(kOpen, std::memory_order_acquire);
        for (int spins = 0; inside_now() > 0; ++spins)
            spins < 2000 ? relax() : std::this_thread::yield();  // a worker may have lost its processor
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

  private:
    // region_: its number, whether it is open, and how many workers are inside
    static constexpr std::uint64_t kOpen = 1 << 16, kNext = 1 << 17, kInside = kOpen - 1;

    static std::uint64_t number(std::uint64_t region) { return region / kNext; }
    std::uint64_t inside_now() const { return region_.load(std::memory_order_acquire) & kInside; }
    bool called(std::uint64_t seen) const { return number(region_.load(std::memory_order_acquire)) != seen; }

    // The thread's own share of the tasks first: what it has written in one region it finds in its cache in the next.
    void take(int own) {
        inside = true;
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
        inside = false;
    }

    // Into the region that is open, if there is one; `seen` becomes the number of the last.
    bool join(std::uint64_t& seen) {
        auto region = region_.load(std::memory_order_acquire);
        while (region & kOpen && !region_.compare_exchange_weak(region, region + 1, std::memory_order_acq_rel)) {
        }
        seen = number(region);
        return region & kOpen;
    }

    void work(int own) {
        for (std::uint64_t seen = 0;;) {
            const auto until = std::chrono::steady_clock::now() + kSpin;
            while (!called(seen) && std::chrono::steady_clock::now() < until)
                for (int i = 0; i < 64 && !called(seen); ++i) relax();
            if (!called(seen)) {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return called(seen); });
            }
            if (stop_) return;
            if (!join(seen)) continue;
            take(own);
            region_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> region_{0};
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
    void* memory[kSlotCount] = {};
    std::size_t size[kSlotCount] = {};
    ~Scratch() {
        for (void* m : memory) std::free(m);
    }
};

thread_local Scratch own;

}  // namespace

void* scratch(Slot slot, std::size_t bytes) {
    if (own.size[slot] < bytes) {
        std::free(own.memory[slot]);
        own.size[slot] = 0;
        const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
        own.memory[slot] = std::aligned_alloc(64, rounded);
        if (!own.memory[slot]) throw std::bad_alloc();
        own.size[slot] = rounded;
    }
    return own.memory[slot];
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
    if (count < 2 || threads < 2 || inside || !lock.try_lock()) {
        for (int i = 0; i < count; ++i) task(context, i);
        return;
    }
    if (!pool) pool = new Pool(threads - 1);
    pool->run(count, task, context);
}

}  // namespace sharedgrad
