#pragma once

// The layers of a model out of a weight source into a device's memory.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/linear.h"
#include "models/family/model_spec.h"
#include "models/layers/weight_memory.h"
#include "models/weights/weight_source.h"

namespace triptych::models {

// One matrix "<name>.weight" [outputs, ...] and perhaps its "<name>.bias" [outputs].
struct LayerPart {
  std::string name;
  int64_t outputs = 0;
  int64_t padded_outputs = 0;  // 0 stands for outputs
};

struct LayerShape {
  int64_t inputs = 0;
  int64_t padded_inputs = 0;  // 0 stands for inputs
  HasBias has_bias = HasBias::kNo;
};

// From one source into one memory. Every error names the tensor; codes as WeightSource::Get and
// WeightMemory.
class LayerLoader {
 public:
  // Borrows both.
  LayerLoader(const WeightSource& weights, WeightMemory* memory)
      : weights_(weights), memory_(*memory) {}

  // The parts below each other as one product.
  absl::StatusOr<kernels::LinearWeights> Linear(absl::Span<const LayerPart> parts,
                                                const LayerShape& shape) const;
  // A matrix whose stored shape is `shape`, taken as [shape[0], the rest]; without a bias.
  absl::StatusOr<kernels::LinearWeights> Matrix(const std::string& name,
                                                absl::Span<const int64_t> shape) const;
  // A vector of the device's activations.
  absl::StatusOr<const void*> Vector(const std::string& name, int64_t size) const;
  // Rows to look up, and the product with the same weights where `tied` is not null.
  absl::StatusOr<PlacedTable> Table(const std::string& name, int64_t rows, int64_t width,
                                    kernels::LinearWeights* tied) const;

  // `width` as the device wants inner widths.
  int64_t Padded(int64_t width) const {
    const int64_t multiple = memory_.width_multiple();
    return (width + multiple - 1) / multiple * multiple;
  }

 private:
  const WeightSource& weights_;
  WeightMemory& memory_;
};

}  // namespace triptych::models
