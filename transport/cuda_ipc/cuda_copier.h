#pragma once

// PeerCopier on a CUDA device: regions by CUDA IPC, copies on a stream of their own, between
// devices and pinned host memory alike.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/cuda.h"
#include "base/mutex.h"
#include "transport/cuda_ipc/peer_copier.h"

namespace triptych::transport {

class CudaCopier final : public PeerCopier {
 public:
  // Errors as base/cuda.h.
  static absl::StatusOr<std::unique_ptr<CudaCopier>> Create(int device);
  // Calls what was enqueued, then ends the thread. No region may be mapped any more.
  ~CudaCopier() override;

  // `region` begins an allocation. UNAVAILABLE: the system gives no handles.
  absl::StatusOr<std::string> Export(const base::MemoryRef& region) override;
  // UNAVAILABLE: not a handle, another host's, of a device that cannot be reached, or of less
  // memory than `bytes`.
  absl::StatusOr<std::unique_ptr<MappedRegion>> Map(const std::string& handle,
                                                    int64_t bytes) override;
  void Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) override;

 private:
  class Mapped;
  struct Entry {
    absl::Status status;  // of the start
    std::optional<base::CudaEvent> event;
    OnDone on_done;
    void* unmap = nullptr;  // instead of all that
  };

  CudaCopier(int device, base::CudaStream stream) : device_(device), stream_(std::move(stream)) {}
  absl::StatusOr<base::CudaEvent> Start(const base::MemoryRef& to, const base::MemoryRef& from)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();
  void Unmap(void* region);

  // More buffers than a landing region has.
  static constexpr size_t kMaxCopies = 1 << 20;

  const int device_;
  base::Mutex mutex_;  // held while one is enqueued, so that events follow each other as copies do
  base::CudaStream stream_ ABSL_GUARDED_BY(mutex_);
  base::BoundedQueue<Entry> entries_{kMaxCopies};
  base::BoundedQueue<base::CudaEvent> spare_{256};
  std::thread thread_;
};

}  // namespace triptych::transport
