#include "models/layers/load_layers.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::models {
namespace {

absl::StatusOr<kernels::DType> KernelType(const std::string& name, const TensorView& tensor) {
  if (tensor.dtype == DType::kBFloat16) return kernels::DType::kBFloat16;
  if (tensor.dtype == DType::kFloat32) return kernels::DType::kFloat32;
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": weights of type ", NameOf(tensor.dtype), " are not supported"));
}

}  // namespace

absl::StatusOr<kernels::LinearWeights> LoadLinear(const Checkpoint& checkpoint,
                                                  absl::Span<const LayerPart> parts, int64_t inputs,
                                                  HasBias has_bias) {
  std::vector<TensorView> tensors;
  std::vector<kernels::LinearSource> sources;
  std::vector<float> bias;
  kernels::DType type = kernels::DType::kFloat32;
  for (const LayerPart& part : parts) {
    const std::string name = part.name + ".weight";
    ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name, {part.outputs, inputs}));
    ASSIGN_OR_RETURN(const kernels::DType part_type, KernelType(name, tensor));
    if (!sources.empty() && part_type != type) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": type differs from its neighbours'"));
    }
    type = part_type;
    sources.push_back({tensor.bytes, part.outputs});
    if (has_bias == HasBias::kYes) {
      ASSIGN_OR_RETURN(std::vector<float> values,
                       LoadFloats(checkpoint, part.name + ".bias", {part.outputs}));
      bias.insert(bias.end(), values.begin(), values.end());
    }
  }
  kernels::LinearWeights weights = kernels::PackLinear(sources, inputs, type);
  weights.bias = std::move(bias);
  return weights;
}

absl::StatusOr<kernels::LinearWeights> LoadMatrix(const Checkpoint& checkpoint,
                                                  const std::string& name,
                                                  absl::Span<const int64_t> shape) {
  ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name, shape));
  ASSIGN_OR_RETURN(const kernels::DType type, KernelType(name, tensor));
  const int64_t inputs = tensor.num_elements() / shape[0];
  return kernels::PackLinear({{tensor.bytes, shape[0]}}, inputs, type);
}

absl::StatusOr<std::vector<float>> LoadFloats(const Checkpoint& checkpoint, const std::string& name,
                                              absl::Span<const int64_t> shape) {
  ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name, shape));
  ASSIGN_OR_RETURN(const kernels::DType type, KernelType(name, tensor));
  static_cast<void>(type);
  return ToFloats(tensor);
}

}  // namespace triptych::models
