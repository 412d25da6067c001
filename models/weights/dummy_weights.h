#pragma once

// Weights drawn from a seed, for the shapes of a config alone: load and speed of any size of model
// without its files. They answer nonsense, but always the same nonsense.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "models/weights/weight_source.h"

namespace triptych::models {

class DummyWeights final : public WeightSource {
 public:
  // Draws on that many threads, at least 1.
  explicit DummyWeights(uint64_t seed, int threads = 1)
      : seed_(seed), pool_(std::make_unique<kernels::ThreadPool>(threads)) {}

  // Any name has a tensor of any shape, BF16, drawn anew by each call (1 ns an element and thread):
  // matrices uniform with variance 1 / inputs, biases with a hundredth of that, the one-dimensional
  // rest (norms) about 1. INVALID_ARGUMENT for a shape without elements.
  absl::StatusOr<TensorView> Get(absl::string_view name,
                                 absl::Span<const int64_t> expected_shape) const override;
  // None: it has whatever is asked for.
  std::vector<std::string> Names() const override { return {}; }
  // The seed; the shapes come from the config, which has a digest of its own.
  std::string Digest(int threads) const override;

 private:
  const uint64_t seed_;
  const std::unique_ptr<kernels::ThreadPool> pool_;
};

}  // namespace triptych::models
