#include "kernels/sample.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {

absl::Status Sample(const SampleArgs& given, const Stream& stream) {
  SampleArgs args = given;
  if (args.logits_stride == 0) args.logits_stride = args.vocab;
  if (args.rows < 0 || args.vocab < 1 || args.vocab > INT32_MAX ||
      args.logits_stride < args.vocab || args.sampled_size < 0 || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("Sample: rows ", args.rows, ", vocab ",
                                                   args.vocab, ", stride ", args.logits_stride,
                                                   ", ", DTypeName(args.dtype)));
  }
  if (args.rows == 0) return absl::OkStatus();
  if (args.logits == nullptr || args.params == nullptr || args.results == nullptr ||
      (args.sampled == nullptr && args.sampled_size > 0)) {
    return absl::InvalidArgumentError("Sample: a pointer is missing");
  }
  if (stream.device == Device::kCpu) {
    internal::SampleCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Sample", internal::SampleCuda(args, stream));
#else
  return NoCudaSide("Sample");
#endif
}

}  // namespace triptych::kernels
