#include "kernels/activation.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {

absl::Status SwiGlu(const SwiGluArgs& given, const Stream& stream) {
  SwiGluArgs args = given;
  if (args.out_stride == 0) args.out_stride = args.n;
  if (args.rows < 0 || args.n < 1 || args.out_stride < args.n || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("SwiGlu: rows ", args.rows, ", n ", args.n,
                                                   ", stride ", args.out_stride, ", ",
                                                   DTypeName(args.dtype)));
  }
  if (args.rows == 0) return absl::OkStatus();
  if (args.gate_up == nullptr || args.out == nullptr) {
    return absl::InvalidArgumentError("SwiGlu: null pointer");
  }
  if (stream.device == Device::kCpu) {
    internal::SwiGluCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("SwiGlu", internal::SwiGluCuda(args, stream));
#else
  return NoCudaSide("SwiGlu");
#endif
}

absl::Status Gelu(const GeluArgs& args, const Stream& stream) {
  if (args.count < 0 || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gelu: ", args.count, " values of ", DTypeName(args.dtype)));
  }
  if (args.count == 0) return absl::OkStatus();
  if (args.x == nullptr) return absl::InvalidArgumentError("Gelu: null pointer");
  if (stream.device == Device::kCpu) {
    internal::GeluCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Gelu", internal::GeluCuda(args, stream));
#else
  return NoCudaSide("Gelu");
#endif
}

}  // namespace triptych::kernels
