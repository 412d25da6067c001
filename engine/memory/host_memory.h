#pragma once

// A region of this process's memory: zero, and resident only where it was touched.

#include <sys/mman.h>

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/memory_ref.h"

namespace triptych::engine {

class HostMemory {
 public:
  HostMemory() = default;
  // RESOURCE_EXHAUSTED when the address space or the commit limit does not allow it. `bytes` may be
  // 0.
  static absl::StatusOr<HostMemory> Map(int64_t bytes) {
    HostMemory memory;
    if (bytes == 0) return memory;
    void* const data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory"));
    }
    memory.ref_ = {.data = data, .bytes = bytes};
    return memory;
  }

  HostMemory(HostMemory&& other) noexcept : ref_(std::exchange(other.ref_, {})) {}
  HostMemory& operator=(HostMemory&& other) noexcept {
    std::swap(ref_, other.ref_);
    return *this;
  }
  ~HostMemory() {
    if (ref_.data != nullptr) munmap(ref_.data, static_cast<size_t>(ref_.bytes));
  }

  const base::MemoryRef& ref() const { return ref_; }

 private:
  base::MemoryRef ref_;
};

}  // namespace triptych::engine
