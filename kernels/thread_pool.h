#pragma once

// A fixed set of worker threads for one caller at a time. Workers wait awake for some microseconds
// between two parallel loops, offering their core to others, then in the kernel. Not a task queue,
// and never the reason for a different result: which thread runs an index must not matter to the
// caller.

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace triptych::kernels {

class ThreadPool {
 public:
  // `num_threads` counts the caller too: num_threads - 1 workers are started. At least 1.
  explicit ThreadPool(int num_threads);
  // No ParallelFor may be running.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls fn(0) ... fn(count - 1), each once, on the workers and the calling thread; returns when
  // all are done. `fn` must not call ParallelFor. One caller at a time; count < 2^32.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> fn);

  // With the caller.
  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  void WorkerLoop();
  // Runs indices of `generation` until none is left.
  void RunIndices(uint32_t generation);

  // generation << 32 | indices not yet taken. Counting down to zero makes a late worker's claim on
  // a finished loop impossible without a second variable. What a worker needs to begin lies in its
  // cache line.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  // Valid while unfinished_ > 0.
  const absl::FunctionRef<void(int64_t)>* fn_ = nullptr;
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  std::vector<std::thread> workers_;
};

// Threads that ParallelFor(pool, ...) uses, the caller included.
inline int NumThreads(const ThreadPool* pool) { return pool == nullptr ? 1 : pool->num_threads(); }

// Runs on `pool`, or on the calling thread when it is null.
void ParallelFor(ThreadPool* pool, int64_t count, absl::FunctionRef<void(int64_t)> fn);

}  // namespace triptych::kernels
