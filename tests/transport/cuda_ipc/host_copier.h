#pragma once

// A PeerCopier of host memory that two processes can share, so that the channel's protocol runs
// without a GPU. Copies may be held back.

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "base/bounded_queue.h"
#include "base/mutex.h"
#include "transport/cuda_ipc/peer_copier.h"

namespace triptych::testing {

// Memory of a file that has no name.
class SharedMemory {
 public:
  explicit SharedMemory(int64_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  const base::MemoryRef& ref() const { return ref_; }
  // As long as this process lives.
  std::string path() const;

 private:
  int fd_ = -1;
  base::MemoryRef ref_;
};

class HostCopier final : public transport::PeerCopier {
 public:
  // `exported` is the region that Export names.
  explicit HostCopier(const SharedMemory& exported);
  ~HostCopier() override;

  absl::StatusOr<std::string> Export(const base::MemoryRef& region) override;
  absl::StatusOr<std::unique_ptr<transport::MappedRegion>> Map(const std::string& handle,
                                                               int64_t bytes) override;
  void Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) override;

  // Copies that begin after Hold() end only after Release().
  void Hold();
  void Release();

 private:
  struct Entry {
    base::MemoryRef to, from;
    OnDone on_done;
  };
  void Run();

  const SharedMemory& exported_;
  base::BoundedQueue<Entry> entries_{1 << 16};
  base::Mutex mutex_;
  base::CondVar released_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace triptych::testing
