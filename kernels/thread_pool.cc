#include "kernels/thread_pool.h"

#include "base/check.h"
#include "base/clock.h"

namespace triptych::kernels {
namespace {

// How long a thread waits awake: longer than the serial code between two loops of a step, shorter
// than the gap between two steps. In time, because a pause is 40 cycles on one processor and 140 on
// another. After the first part it offers its core to whoever else can run (the threads that send
// what the step before made), so it costs them nothing.
constexpr base::Duration kAwake = std::chrono::microseconds(50);
constexpr base::Duration kAlone = std::chrono::microseconds(4);
constexpr int kPausesAtOnce = 16;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// One wait for something that another thread is about to do. Awake() passes a little time; false
// when it has been kAwake.
class ShortWait {
 public:
  bool Awake() {
    if (++pauses_ % kPausesAtOnce != 0) {
      Pause();
      return true;
    }
    const base::TimePoint now = clock_.Now();
    if (pauses_ == kPausesAtOnce) start_ = now;
    if (now - start_ > kAlone) std::this_thread::yield();
    return now - start_ < kAwake;
  }

 private:
  const base::RealClock clock_;
  int64_t pauses_ = 0;
  base::TimePoint start_{};
};

uint32_t GenerationOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
uint32_t RemainingOf(uint64_t ticket) { return static_cast<uint32_t>(ticket); }

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  CHECK_GE(num_threads, 1);
  workers_.reserve(num_threads - 1);
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  ticket_.fetch_add(uint64_t{1} << 32);
  ticket_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> fn) {
  CHECK_TRUE(count >= 0 && count < int64_t{1} << 32);
  if (count == 0) return;
  if (workers_.empty() || count == 1) {
    for (int64_t i = 0; i < count; ++i) fn(i);
    return;
  }
  fn_ = &fn;
  unfinished_.store(count, std::memory_order_relaxed);
  const uint32_t generation = GenerationOf(ticket_.load(std::memory_order_relaxed)) + 1;
  ticket_.store(uint64_t{generation} << 32 | static_cast<uint64_t>(count),
                std::memory_order_seq_cst);
  ticket_.notify_all();
  RunIndices(generation);
  ShortWait wait;
  while (unfinished_.load(std::memory_order_acquire) != 0) wait.Awake();
}

void ThreadPool::RunIndices(uint32_t generation) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (GenerationOf(ticket) == generation && RemainingOf(ticket) > 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel)) continue;
    (*fn_)(RemainingOf(ticket) - 1);
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop() {
  uint64_t seen = 0;
  while (true) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    ShortWait wait;
    while (GenerationOf(ticket) == GenerationOf(seen)) {
      if (!wait.Awake()) ticket_.wait(ticket, std::memory_order_acquire);
      ticket = ticket_.load(std::memory_order_acquire);
    }
    if (stopping_.load()) return;
    seen = ticket;
    RunIndices(GenerationOf(ticket));
  }
}

void ParallelFor(ThreadPool* pool, int64_t count, absl::FunctionRef<void(int64_t)> fn) {
  if (pool != nullptr) {
    pool->ParallelFor(count, fn);
  } else {
    for (int64_t i = 0; i < count; ++i) fn(i);
  }
}

}  // namespace triptych::kernels
