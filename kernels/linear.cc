#include "kernels/linear.h"

#include <cstring>

#include "base/check.h"
#include "kernels/cpu_math.h"

namespace triptych::kernels {

LinearWeights PackLinear(absl::Span<const LinearSource> parts, int64_t inputs, DType type) {
  LinearWeights packed{.inputs = inputs, .type = type};
  for (const LinearSource& part : parts) packed.outputs += part.outputs;
  const int64_t size = SizeOf(type);
  packed.panels.assign(PaddedLanes(packed.outputs) * inputs * size, 0);
  int64_t output = 0;
  for (const LinearSource& part : parts) {
    const auto* from = static_cast<const uint8_t*>(part.bytes);
    for (int64_t row = 0; row < part.outputs; ++row, ++output) {
      const int64_t panel = output / kLanes, lane = output % kLanes;
      uint8_t* to = packed.panels.data() + (panel * inputs * kLanes + lane) * size;
      for (int64_t k = 0; k < inputs; ++k) {
        std::memcpy(to + k * kLanes * size, from + (row * inputs + k) * size, size);
      }
    }
  }
  return packed;
}

absl::Status Linear(const LinearWeights& weights, LinearArgs args, const Stream& stream) {
  if (stream.device != Device::kCpu) return absl::UnimplementedError("Linear runs on the CPU only");
  if (args.x_stride == 0) args.x_stride = weights.inputs;
  if (args.y_stride == 0) args.y_stride = weights.outputs;
  if (args.rows < 0 || args.x_stride < weights.inputs || args.y_stride < weights.outputs) {
    return absl::InvalidArgumentError("Linear: rows below 0 or a stride below the width");
  }
  if (args.rows == 0) return absl::OkStatus();
  if (args.x == nullptr || args.y == nullptr) {
    return absl::InvalidArgumentError("Linear: null pointer");
  }
  internal::LinearCpu(weights, args, stream.pool);
  return absl::OkStatus();
}

}  // namespace triptych::kernels
