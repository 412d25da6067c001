#include "models/layers/weight_memory.h"

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace triptych::models {

absl::StatusOr<base::DType> DeviceTypeOf(const TensorView& tensor) {
  if (tensor.dtype == TensorType::kBFloat16) return base::DType::kBFloat16;
  if (tensor.dtype == TensorType::kFloat32) return base::DType::kFloat32;
  return absl::InvalidArgumentError(
      absl::StrCat("weights of type ", NameOf(tensor.dtype), " are not supported"));
}

void HostWeightMemory::Free::operator()(uint8_t* bytes) const { std::free(bytes); }

absl::StatusOr<absl::Span<uint8_t>> HostWeightMemory::Take(int64_t bytes) {
  const int64_t rounded = (bytes + 63) / 64 * 64;
  auto* data = static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(rounded)));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes for weights"));
  }
  blocks_.emplace_back(data);
  return absl::MakeSpan(data, static_cast<size_t>(bytes));
}

absl::StatusOr<kernels::LinearWeights> HostWeightMemory::PlaceMatrix(const Matrix& matrix) {
  CHECK_EQ(matrix.padded_inputs, matrix.inputs);
  kernels::LinearWeights placed{.inputs = matrix.inputs};
  std::vector<kernels::LinearSource> sources;
  std::vector<float> bias;
  for (const MatrixPart& part : matrix.parts) {
    CHECK_EQ(part.padded_outputs, part.outputs);
    ASSIGN_OR_RETURN(const base::DType type, DeviceTypeOf(part.weight));
    if (!sources.empty() && type != placed.type) {
      return absl::InvalidArgumentError("the parts of one product differ in type");
    }
    placed.type = type;
    placed.outputs += part.outputs;
    sources.push_back({part.weight.bytes, part.outputs});
    if (part.bias.has_value()) {
      RETURN_IF_ERROR(DeviceTypeOf(*part.bias).status());
      const std::vector<float> values = ToFloats(*part.bias);
      bias.insert(bias.end(), values.begin(), values.end());
    }
  }
  ASSIGN_OR_RETURN(const absl::Span<uint8_t> panels,
                   Take(kernels::PanelBytes(placed.outputs, placed.inputs, placed.type)));
  kernels::PackPanels(sources, placed.inputs, placed.type, panels, pool_);
  placed.matrix = {.data = panels.data(), .bytes = static_cast<int64_t>(panels.size())};
  if (bias.empty()) return placed;
  const size_t bytes = bias.size() * sizeof(float);
  ASSIGN_OR_RETURN(const absl::Span<uint8_t> kept, Take(static_cast<int64_t>(bytes)));
  std::memcpy(kept.data(), bias.data(), bytes);
  placed.bias = kept.data();
  return placed;
}

absl::StatusOr<const void*> HostWeightMemory::PlaceVector(const TensorView& vector) {
  RETURN_IF_ERROR(DeviceTypeOf(vector).status());
  const std::vector<float> values = ToFloats(vector);
  const size_t bytes = values.size() * sizeof(float);
  ASSIGN_OR_RETURN(const absl::Span<uint8_t> kept, Take(static_cast<int64_t>(bytes)));
  std::memcpy(kept.data(), values.data(), bytes);
  return kept.data();
}

absl::StatusOr<PlacedTable> HostWeightMemory::PlaceTable(const TensorView& table) {
  ASSIGN_OR_RETURN(const base::DType type, DeviceTypeOf(table));
  ASSIGN_OR_RETURN(const absl::Span<uint8_t> kept, Take(table.size_bytes));
  std::memcpy(kept.data(), table.bytes, kept.size());
  return PlacedTable{kept.data(), type};
}

absl::StatusOr<kernels::LinearWeights> HostWeightMemory::PlaceTied(const TensorView& table,
                                                                   const PlacedTable&) {
  const int64_t outputs = table.shape.at(0), inputs = table.shape.at(1);
  return PlaceMatrix({.parts = {{.weight = table, .outputs = outputs, .padded_outputs = outputs}},
                      .inputs = inputs,
                      .padded_inputs = inputs});
}

}  // namespace triptych::models
