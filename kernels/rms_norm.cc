#include "kernels/rms_norm.h"

#include "absl/strings/str_cat.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Check(const RmsNormArgs& args) {
  if (args.x == nullptr || args.weight == nullptr || args.out == nullptr) {
    return absl::InvalidArgumentError("RmsNorm: x, weight and out must be given");
  }
  if (args.rows < 0 || args.hidden < 1 || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("RmsNorm: rows ", args.rows, ", hidden ",
                                                   args.hidden, ", ", DTypeName(args.dtype)));
  }
  if (args.x_stride < args.hidden || args.out_stride < args.hidden ||
      args.residual_stride < args.hidden) {
    return absl::InvalidArgumentError(absl::StrCat("RmsNorm: strides ", args.x_stride, ", ",
                                                   args.out_stride, " and ", args.residual_stride,
                                                   " must each reach hidden, ", args.hidden));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RmsNorm(const RmsNormArgs& given, const Stream& stream) {
  RmsNormArgs args = given;
  if (args.x_stride == 0) args.x_stride = args.hidden;
  if (args.out_stride == 0) args.out_stride = args.hidden;
  if (args.residual_stride == 0) args.residual_stride = args.hidden;
  if (absl::Status status = Check(args); !status.ok()) return status;
  if (args.rows == 0) return absl::OkStatus();
  if (stream.device == Device::kCpu) {
    internal::RmsNormCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("RmsNorm", internal::RmsNormCuda(args, stream));
#else
  return NoCudaSide("RmsNorm");
#endif
}

}  // namespace triptych::kernels
