#pragma once

// Where a model's tensors come from: a published checkpoint, or numbers drawn from a seed.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/weights/tensor_view.h"

namespace triptych::models {

// Immutable; one thread at a time, since a source may spread its work over threads of its own.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // NOT_FOUND for an unknown name, INVALID_ARGUMENT when the shape is not `expected_shape`. The
  // view lives as long as this source, and as long as its own `owner`.
  virtual absl::StatusOr<TensorView> Get(absl::string_view name,
                                         absl::Span<const int64_t> expected_shape) const = 0;
  // Sorted.
  virtual std::vector<std::string> Names() const = 0;

  // 32 characters that differ where any weight does (128 bits against accidents, not against an
  // attacker), whatever the number of threads (at least 1). Reads every byte once, on all of them;
  // a load that follows finds the bytes in memory.
  virtual std::string Digest(int threads) const = 0;
};

}  // namespace triptych::models
