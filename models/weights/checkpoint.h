#pragma once

// The weights of a published model: one model.safetensors, or shards that
// model.safetensors.index.json names. Mapped, so that processes on one machine share the pages.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/weights/safetensors.h"
#include "models/weights/tensor_view.h"

namespace triptych::models {

// Immutable after Open, so any thread may read it.
class Checkpoint {
 public:
  // Opens every shard and checks that each tensor of the index is where the index says. NOT_FOUND
  // when a file is missing, INVALID_ARGUMENT when one is malformed or a shard's name leaves `dir`.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  // NOT_FOUND for an unknown name, INVALID_ARGUMENT when the shape is not `expected_shape`. The
  // view lives as long as this checkpoint.
  absl::StatusOr<TensorView> Get(absl::string_view name,
                                 absl::Span<const int64_t> expected_shape) const;
  bool Contains(absl::string_view name) const { return shard_of_.contains(name); }
  // Sorted.
  std::vector<std::string> Names() const;

 private:
  Checkpoint() = default;
  absl::Status OpenShard(const std::string& path);

  std::vector<SafetensorsFile> shards_;
  absl::flat_hash_map<std::string, size_t> shard_of_;
};

}  // namespace triptych::models
