#pragma once

// 128 bits against accidents, not against an attacker.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"

namespace triptych::models {

class Digest {
 public:
  // Both halves in one pass over `bytes`, in slices that the threads of `pool` (may be null) share;
  // the order of calls counts, the number of threads does not.
  void Add(absl::string_view label, absl::Span<const char> bytes, kernels::ThreadPool* pool);
  // 32 lower-case hexadecimal characters.
  std::string Hex() const;

 private:
  uint64_t halves_[2] = {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL};
};

}  // namespace triptych::models
