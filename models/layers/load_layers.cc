#include "models/layers/load_layers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::models {
namespace {

template <typename T>
absl::StatusOr<T> Named(absl::StatusOr<T> placed, const std::string& name) {
  if (placed.ok()) return placed;
  return absl::Status(placed.status().code(), absl::StrCat(name, ": ", placed.status().message()));
}

}  // namespace

absl::StatusOr<kernels::LinearWeights> LayerLoader::Linear(absl::Span<const LayerPart> parts,
                                                           const LayerShape& shape) const {
  models::Matrix matrix{
      .inputs = shape.inputs,
      .padded_inputs = shape.padded_inputs == 0 ? shape.inputs : shape.padded_inputs};
  for (const LayerPart& part : parts) {
    MatrixPart& to = matrix.parts.emplace_back();
    to.outputs = part.outputs;
    to.padded_outputs = part.padded_outputs == 0 ? part.outputs : part.padded_outputs;
    ASSIGN_OR_RETURN(to.weight, weights_.Get(part.name + ".weight", {part.outputs, shape.inputs}));
    if (shape.has_bias == HasBias::kNo) continue;
    ASSIGN_OR_RETURN(to.bias, weights_.Get(part.name + ".bias", {part.outputs}));
  }
  return Named(memory_.PlaceMatrix(matrix), parts[0].name);
}

absl::StatusOr<kernels::LinearWeights> LayerLoader::Matrix(const std::string& name,
                                                           absl::Span<const int64_t> shape) const {
  models::Matrix matrix;
  MatrixPart& part = matrix.parts.emplace_back();
  part.outputs = part.padded_outputs = shape[0];
  ASSIGN_OR_RETURN(part.weight, weights_.Get(name, shape));
  matrix.inputs = matrix.padded_inputs = part.weight.num_elements() / shape[0];
  return Named(memory_.PlaceMatrix(matrix), name);
}

absl::StatusOr<const void*> LayerLoader::Vector(const std::string& name, int64_t size) const {
  ASSIGN_OR_RETURN(const TensorView tensor, weights_.Get(name, {size}));
  return Named(memory_.PlaceVector(tensor), name);
}

absl::StatusOr<PlacedTable> LayerLoader::Table(const std::string& name, int64_t rows, int64_t width,
                                               kernels::LinearWeights* tied) const {
  ASSIGN_OR_RETURN(const TensorView tensor, weights_.Get(name, {rows, width}));
  ASSIGN_OR_RETURN(const PlacedTable table, Named(memory_.PlaceTable(tensor), name));
  if (tied == nullptr) return table;
  ASSIGN_OR_RETURN(*tied, Named(memory_.PlaceTied(tensor, table), name));
  return table;
}

}  // namespace triptych::models
