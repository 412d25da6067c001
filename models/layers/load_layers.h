#pragma once

// Layers out of a checkpoint: matrices packed for the CPU product, vectors widened to float32.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/linear.h"
#include "models/weights/checkpoint.h"

namespace triptych::models {

enum class HasBias { kNo, kYes };

// A product's weights with the memory that they lie in.
struct PackedLinear {
  int64_t inputs = 0;
  int64_t outputs = 0;
  kernels::DType type = kernels::DType::kBFloat16;
  std::vector<uint8_t> panels;
  std::vector<float> bias;  // [outputs], or empty

  kernels::LinearWeights weights() const;
};

// One matrix "<name>.weight" [outputs, ...] and its "<name>.bias" [outputs].
struct LayerPart {
  std::string name;
  int64_t outputs = 0;
};

// The parts below each other as one product of `inputs` inputs. Weights are BF16 or F32 and keep
// their type. Errors as Checkpoint::Get; INVALID_ARGUMENT for another element type.
absl::StatusOr<PackedLinear> LoadLinear(const Checkpoint& checkpoint,
                                        absl::Span<const LayerPart> parts, int64_t inputs,
                                        HasBias has_bias);

// A matrix whose stored shape is `shape`, taken as [shape[0], the rest]; without a bias.
absl::StatusOr<PackedLinear> LoadMatrix(const Checkpoint& checkpoint, const std::string& name,
                                        absl::Span<const int64_t> shape);

// A vector or matrix widened to float32, row-major.
absl::StatusOr<std::vector<float>> LoadFloats(const Checkpoint& checkpoint, const std::string& name,
                                              absl::Span<const int64_t> shape);

}  // namespace triptych::models
