#include "kernels/rotate.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {

absl::Status Rotate(const RotateArgs& given, const Stream& stream) {
  RotateArgs args = given;
  const int64_t width = int64_t{args.heads} * args.head_dim;
  if (args.x_stride == 0) args.x_stride = width;
  if (args.tokens < 0 || args.heads < 1 || args.head_dim < 2 || args.head_dim % 2 != 0 ||
      args.x_stride < width || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Rotate: tokens ", args.tokens, ", heads ", args.heads, ", head_dim ",
                     args.head_dim, ", stride ", args.x_stride, ", ", DTypeName(args.dtype)));
  }
  if (args.tokens == 0) return absl::OkStatus();
  if (args.x == nullptr || args.cosines == nullptr || args.sines == nullptr) {
    return absl::InvalidArgumentError("Rotate: null pointer");
  }
  if (stream.device == Device::kCpu) {
    internal::RotateCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Rotate", internal::RotateCuda(args, stream));
#else
  return NoCudaSide("Rotate");
#endif
}

}  // namespace triptych::kernels
