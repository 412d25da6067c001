#pragma once

// What owns things of the CUDA runtime: streams, events, memory of a device, pinned memory of the
// host. Handles are void*, so that whoever includes this needs no CUDA header; a cudaStream_t or
// cudaEvent_t is what they hold. Built only where CUDA was found.
//
// Each is move-only, belongs to the device it was made on and is used by one thread at a time. Its
// destructor may wait for work that uses it. Errors: RESOURCE_EXHAUSTED when memory ran out,
// otherwise INTERNAL with CUDA's text; after a sticky error (an illegal address) every later call
// answers the same, and the process has to end.

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/memory_ref.h"

namespace triptych::base {

// OK for 0 (cudaSuccess), else a status that says `what` failed and CUDA's own text.
absl::Status CudaStatus(int cuda_error, absl::string_view what);

struct CudaDeviceInfo {
  std::string name;
  int sm_count = 0;
  int capability = 0;  // 10 * major + minor
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

// Makes `device` the calling thread's. UNAVAILABLE: no driver or no such device.
absl::Status UseCudaDevice(int device);
absl::StatusOr<CudaDeviceInfo> DescribeCudaDevice(int device);

// Frees what it holds through the given function; the four below are built on it.
class CudaHandle {
 public:
  using Free = void (*)(void*);

  CudaHandle() = default;
  CudaHandle(void* handle, Free free) : handle_(handle), free_(free) {}
  CudaHandle(CudaHandle&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), free_(other.free_) {}
  CudaHandle& operator=(CudaHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(free_, other.free_);
    return *this;
  }
  ~CudaHandle() {
    if (handle_ != nullptr) free_(handle_);
  }

  void* get() const { return handle_; }

 private:
  void* handle_ = nullptr;
  Free free_ = nullptr;
};

enum class CudaPriority { kHigh, kLow };
enum class CudaTiming { kOff, kOn };

// An event without timing is what streams and threads wait for; waiting threads sleep.
class CudaEvent {
 public:
  static absl::StatusOr<CudaEvent> Create(CudaTiming timing);

  void* get() const { return handle_.get(); }
  absl::Status Record(void* stream);
  // Blocks until what was recorded is done.
  absl::Status Synchronize() const;
  // Time from `begin` to this, both recorded with timing and done.
  absl::StatusOr<float> MillisecondsSince(const CudaEvent& begin) const;

 private:
  explicit CudaEvent(CudaHandle handle) : handle_(std::move(handle)) {}
  CudaHandle handle_;
};

// Does not wait for the legacy default stream.
class CudaStream {
 public:
  static absl::StatusOr<CudaStream> Create(CudaPriority priority);

  void* get() const { return handle_.get(); }
  // Later work of this stream starts after what `event` recorded; does not block the caller.
  absl::Status Wait(const CudaEvent& event);
  // Blocks until everything enqueued so far is done.
  absl::Status Synchronize() const;
  // Enqueues a copy between any two spaces. Asynchronous when host memory is pinned.
  absl::Status Copy(const MemoryRef& to, const MemoryRef& from);

 private:
  explicit CudaStream(CudaHandle handle) : handle_(std::move(handle)) {}
  CudaHandle handle_;
};

// Plain memory of a device, 256-byte aligned, contents undefined.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  static absl::StatusOr<DeviceMemory> Allocate(int device, int64_t bytes);

  const MemoryRef& ref() const { return ref_; }

 private:
  DeviceMemory(CudaHandle handle, MemoryRef ref) : handle_(std::move(handle)), ref_(ref) {}
  CudaHandle handle_;
  MemoryRef ref_;
};

// Page-locked host memory: copies from and to it run beside the calling thread.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  static absl::StatusOr<PinnedMemory> Allocate(int64_t bytes);

  const MemoryRef& ref() const { return ref_; }

 private:
  PinnedMemory(CudaHandle handle, MemoryRef ref) : handle_(std::move(handle)), ref_(ref) {}
  CudaHandle handle_;
  MemoryRef ref_;
};

}  // namespace triptych::base
