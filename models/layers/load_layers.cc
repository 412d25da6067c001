#include "models/layers/load_layers.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::models {
namespace {

absl::StatusOr<kernels::DType> KernelType(const std::string& name, const TensorView& tensor) {
  if (tensor.dtype == TensorType::kBFloat16) return kernels::DType::kBFloat16;
  if (tensor.dtype == TensorType::kFloat32) return kernels::DType::kFloat32;
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": weights of type ", NameOf(tensor.dtype), " are not supported"));
}

PackedLinear Pack(absl::Span<const kernels::LinearSource> sources, int64_t inputs,
                  kernels::DType type) {
  PackedLinear packed{.inputs = inputs, .type = type};
  for (const kernels::LinearSource& source : sources) packed.outputs += source.outputs;
  packed.panels.resize(kernels::PanelBytes(packed.outputs, inputs, type));
  kernels::PackPanels(sources, inputs, type, absl::MakeSpan(packed.panels), nullptr);
  return packed;
}

}  // namespace

kernels::LinearWeights PackedLinear::weights() const {
  return {.inputs = inputs,
          .outputs = outputs,
          .type = type,
          .matrix = {const_cast<uint8_t*>(panels.data()), static_cast<int64_t>(panels.size())},
          .bias = bias.empty() ? nullptr : bias.data()};
}

absl::StatusOr<PackedLinear> LoadLinear(const Checkpoint& checkpoint,
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
  PackedLinear packed = Pack(sources, inputs, type);
  packed.bias = std::move(bias);
  return packed;
}

absl::StatusOr<PackedLinear> LoadMatrix(const Checkpoint& checkpoint, const std::string& name,
                                        absl::Span<const int64_t> shape) {
  ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name, shape));
  ASSIGN_OR_RETURN(const kernels::DType type, KernelType(name, tensor));
  const int64_t inputs = tensor.num_elements() / shape[0];
  return Pack({{tensor.bytes, shape[0]}}, inputs, type);
}

absl::StatusOr<std::vector<float>> LoadFloats(const Checkpoint& checkpoint, const std::string& name,
                                              absl::Span<const int64_t> shape) {
  ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name, shape));
  ASSIGN_OR_RETURN(const kernels::DType type, KernelType(name, tensor));
  static_cast<void>(type);
  return ToFloats(tensor);
}

}  // namespace triptych::models
