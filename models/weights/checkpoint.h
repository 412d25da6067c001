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
#include "models/weights/weight_source.h"

namespace triptych::models {

// Immutable after Open, so any thread may read it.
class Checkpoint final : public WeightSource {
 public:
  // Opens every shard and checks that each tensor of the index is where the index says. NOT_FOUND
  // when a file is missing, INVALID_ARGUMENT when one is malformed or a shard's name leaves `dir`.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  absl::StatusOr<TensorView> Get(absl::string_view name,
                                 absl::Span<const int64_t> expected_shape) const override;
  bool Contains(absl::string_view name) const { return shard_of_.contains(name); }
  std::vector<std::string> Names() const override;
  // Of the shards' bytes, in the order of their names.
  std::string Digest(int threads) const override;

 private:
  Checkpoint() = default;
  absl::Status OpenShard(const std::string& path);

  std::vector<SafetensorsFile> shards_;
  absl::flat_hash_map<std::string, size_t> shard_of_;
};

}  // namespace triptych::models
