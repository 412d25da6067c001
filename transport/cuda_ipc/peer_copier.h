#pragma once

// The few calls of a device that cuda_ipc needs: give a region away, reach a peer's, copy. Behind
// an interface, so that the protocol of the channel runs and is tested without a GPU.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/memory_ref.h"

namespace triptych::transport {

// A peer's region in our address space until this is destroyed.
class MappedRegion {
 public:
  virtual ~MappedRegion() = default;
  virtual const base::MemoryRef& ref() const = 0;
};

// Thread-safe.
class PeerCopier {
 public:
  using OnDone = std::function<void(absl::Status)>;
  virtual ~PeerCopier() = default;

  // At most kMaxHandleBytes that name `region`, which stays where it is, to another process.
  virtual absl::StatusOr<std::string> Export(const base::MemoryRef& region) = 0;
  // May take milliseconds. Errors: what the handle names cannot be reached from here.
  virtual absl::StatusOr<std::unique_ptr<MappedRegion>> Map(const std::string& handle,
                                                            int64_t bytes) = 0;
  // Enqueues a copy of all of `from` to `to`, of the same size; does not block. `on_done` comes
  // once, in the order of the calls, from a thread of the copier's, never from within. INTERNAL:
  // the device failed.
  virtual void Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) = 0;

  static constexpr size_t kMaxHandleBytes = 64;
};

}  // namespace triptych::transport
