#include "kernels/checksum.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {

absl::Status Checksum(const ChecksumArgs& args, const Stream& stream) {
  if (args.bytes < 0 || args.checksum == nullptr || (args.data == nullptr && args.bytes > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Checksum: null pointer, or a size of ", args.bytes));
  }
  if (stream.device == Device::kCpu) {
    internal::ChecksumCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Checksum", internal::ChecksumCuda(args, stream));
#else
  return NoCudaSide("Checksum");
#endif
}

}  // namespace triptych::kernels
