#include "kernels/linear.h"

#include <cstring>

#include "base/check.h"
#include "base/status.h"
#include "kernels/cpu_math.h"
#include "kernels/op_status.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"

namespace triptych::kernels {
namespace {

// One panel: column `lane` of it is row `lane` of the source rows, which may lie in several parts.
template <typename T>
void PackPanel(const uint8_t* const* rows, int count, int64_t inputs, uint8_t* panel) {
  for (int64_t k = 0; k < inputs; ++k) {
    T column[kLanes] = {};
    for (int lane = 0; lane < count; ++lane) {
      std::memcpy(&column[lane], rows[lane] + k * sizeof(T), sizeof(T));
    }
    std::memcpy(panel + k * sizeof(column), column, sizeof(column));
  }
}

int64_t OutputWidth(const LinearWeights& weights, const LinearArgs& args) {
  return args.activation == LinearActivation::kSwiGlu ? weights.outputs / 2 : weights.outputs;
}

absl::Status CheckWeights(const LinearWeights& weights, const LinearArgs& args,
                          const Stream& stream) {
  const bool cpu = stream.device == Device::kCpu;
  const LinearLayout layout = cpu ? LinearLayout::kPanels16 : LinearLayout::kRowMajor;
  const bool typed =
      weights.type == DType::kE4M3 ? !cpu && weights.scales != nullptr : IsActivation(weights.type);
  if (weights.inputs < 1 || weights.outputs < 1 || weights.layout != layout || !typed) {
    return absl::InvalidArgumentError(absl::StrCat("Linear: weights of ", weights.outputs, " x ",
                                                   weights.inputs, ", ", DTypeName(weights.type),
                                                   ", layout ", static_cast<int>(weights.layout)));
  }
  const int64_t needed = cpu ? PanelBytes(weights.outputs, weights.inputs, weights.type)
                             : weights.outputs * weights.inputs * SizeOf(weights.type);
  if (weights.matrix.data == nullptr || weights.matrix.bytes < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat("Linear: ", weights.matrix.bytes, " bytes of weights, ", needed, " needed"));
  }
  if (args.activation == LinearActivation::kSwiGlu && weights.outputs % 2 != 0) {
    return absl::InvalidArgumentError("Linear: SwiGLU of an odd number of outputs");
  }
  return absl::OkStatus();
}

absl::Status Check(const LinearWeights& weights, const LinearArgs& args, const Stream& stream) {
  RETURN_IF_ERROR(CheckWeights(weights, args, stream));
  const int64_t width = OutputWidth(weights, args);
  if (args.rows < 0 || args.x_stride < weights.inputs || args.y_stride < width) {
    return absl::InvalidArgumentError(absl::StrCat("Linear: rows ", args.rows, ", strides ",
                                                   args.x_stride, " and ", args.y_stride, " for ",
                                                   weights.inputs, " to ", width));
  }
  if (!IsActivation(args.dtype) || !IsActivation(args.y_dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Linear: ", DTypeName(args.dtype), " to ", DTypeName(args.y_dtype)));
  }
  if (args.residual != nullptr && args.activation != LinearActivation::kNone) {
    return absl::InvalidArgumentError("Linear: a residual beside an activation");
  }
  if (args.rows > 0 && (args.x == nullptr || args.y == nullptr)) {
    return absl::InvalidArgumentError("Linear: null pointer");
  }
  return absl::OkStatus();
}

}  // namespace

int64_t PanelBytes(int64_t outputs, int64_t inputs, DType type) {
  return (PaddedLanes(outputs) * inputs * SizeOf(type) + 63) / 64 * 64;
}

void PackPanels(absl::Span<const LinearSource> parts, int64_t inputs, DType type,
                absl::Span<uint8_t> panels, ThreadPool* pool) {
  std::vector<const uint8_t*> rows;
  for (const LinearSource& part : parts) {
    const auto* from = static_cast<const uint8_t*>(part.bytes);
    for (int64_t row = 0; row < part.outputs; ++row) {
      rows.push_back(from + row * inputs * SizeOf(type));
    }
  }
  const auto outputs = static_cast<int64_t>(rows.size());
  CHECK_TRUE(IsActivation(type));
  CHECK_LE(PanelBytes(outputs, inputs, type), static_cast<int64_t>(panels.size()));
  ParallelFor(pool, PaddedLanes(outputs) / kLanes, [&](int64_t panel) {
    const int64_t first = panel * kLanes;
    const int count = static_cast<int>(std::min<int64_t>(kLanes, outputs - first));
    uint8_t* to = panels.data() + first * inputs * SizeOf(type);
    const auto pack = type == DType::kFloat32 ? PackPanel<uint32_t> : PackPanel<uint16_t>;
    pack(rows.data() + first, count, inputs, to);
  });
}

absl::Status Linear(const LinearWeights& weights, const LinearArgs& given, const Stream& stream) {
  LinearArgs args = given;
  if (args.x_stride == 0) args.x_stride = weights.inputs;
  if (args.y_stride == 0) args.y_stride = OutputWidth(weights, args);
  RETURN_IF_ERROR(Check(weights, args, stream));
  if (args.rows == 0) return absl::OkStatus();
  if (stream.device == Device::kCpu) {
    if (stream.workspace == nullptr && LinearWorkspaceBytes(weights, args) > 0) {
      return absl::InvalidArgumentError("Linear: a workspace is needed");
    }
    internal::LinearCpu(weights, args, stream);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Linear", internal::LinearCuda(weights, args, stream));
#else
  return NoCudaSide("Linear");
#endif
}

}  // namespace triptych::kernels
