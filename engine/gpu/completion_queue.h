#pragma once

// Tells when work of CUDA streams is done: one thread that waits for events in the order in which
// they were recorded and calls what belongs to each. No cudaLaunchHostFunc: that would hold up the
// stream, and what it calls may not use CUDA.

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/cuda.h"

namespace triptych::engine {

class CompletionQueue {
 public:
  using OnDone = std::function<void()>;
  using OnFailure = std::function<void(const absl::Status&)>;

  // `capacity`: the most entries that may wait at once (CHECKed). `on_failure` is called on the
  // queue's thread, at most once, when a wait fails: the device is then of no use any more, and no
  // later entry is called.
  static absl::StatusOr<std::unique_ptr<CompletionQueue>> Create(int device, int capacity,
                                                                 OnFailure on_failure);
  // Calls what was pushed, then ends the thread.
  ~CompletionQueue();

  // `done` is called when everything that `stream` (a cudaStream_t of this device) holds now has
  // finished. Entries are called in the order of Push, whatever their streams. One thread at a
  // time. Does not block; a failed record ends in `on_failure`.
  void Push(void* stream, OnDone done);

 private:
  struct Entry {
    base::CudaEvent event;
    absl::Status recorded;
    OnDone done;
  };

  CompletionQueue(int device, int capacity, OnFailure on_failure)
      : device_(device),
        on_failure_(std::move(on_failure)),
        waiting_(static_cast<size_t>(capacity)),
        spare_(static_cast<size_t>(capacity)) {}
  void Run();

  const int device_;
  const OnFailure on_failure_;
  base::BoundedQueue<Entry> waiting_;
  base::BoundedQueue<base::CudaEvent> spare_;
  std::thread thread_;
};

}  // namespace triptych::engine
