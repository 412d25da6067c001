#pragma once

// A piece of memory by name: in which space, on which device, where, how long. It owns nothing.
// Host code reads and writes it only through HostBytes(), so that a device's address is never
// followed.

#include <cstdint>

#include "absl/types/span.h"
#include "base/check.h"

namespace triptych::base {

enum class MemorySpace : uint8_t { kHost, kCuda };

struct MemoryRef {
  void* data = nullptr;  // null: declared only, a device that has a size and no bytes
  int64_t bytes = 0;
  MemorySpace space = MemorySpace::kHost;
  int device = 0;  // of its space

  bool declared_only() const { return data == nullptr; }

  // Bytes [offset, offset + size), which must lie inside (CHECKed).
  MemoryRef Sub(int64_t offset, int64_t size) const {
    CHECK_TRUE(offset >= 0 && size >= 0 && offset <= bytes - size);
    void* const start = declared_only() ? nullptr : static_cast<uint8_t*>(data) + offset;
    return {start, size, space, device};
  }

  // Host memory only (CHECKed). Empty where bytes are only declared.
  absl::Span<uint8_t> HostBytes() const {
    CHECK_TRUE(space == MemorySpace::kHost);
    if (declared_only()) return {};
    return {static_cast<uint8_t*>(data), static_cast<size_t>(bytes)};
  }
};

// All of `span`, as host memory.
inline MemoryRef HostRef(absl::Span<uint8_t> span) {
  return {.data = span.data(), .bytes = static_cast<int64_t>(span.size())};
}

}  // namespace triptych::base
