#include "kernels/embed.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Check(const EmbedArgs& args) {
  if (args.tokens < 0 || args.vocab_size < 1 || args.pool_slots < 0 || args.sampled_size < 0 ||
      args.width < 1 || args.pool_stride < args.width ||
      args.vocab_size + args.pool_slots > INT32_MAX || args.sampled_size > INT32_MAX - 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("Embed: tokens ", args.tokens, ", vocab_size ", args.vocab_size,
                     ", pool_slots ", args.pool_slots, ", sampled ", args.sampled_size, ", width ",
                     args.width, ", pool stride ", args.pool_stride));
  }
  if (!IsActivation(args.table_dtype) || !IsActivation(args.pool_dtype) ||
      !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError("Embed: float32 and bfloat16 only");
  }
  if (args.tokens == 0) return absl::OkStatus();
  if (args.inputs == nullptr || args.table == nullptr || args.out == nullptr ||
      (args.pool == nullptr && args.pool_slots > 0) ||
      (args.sampled == nullptr && args.sampled_size > 0) ||
      (args.errors == nullptr) != (args.row_of_token == nullptr)) {
    return absl::InvalidArgumentError("Embed: a pointer is missing");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Embed(const EmbedArgs& given, const Stream& stream) {
  EmbedArgs args = given;
  if (args.pool_stride == 0) args.pool_stride = args.width;
  RETURN_IF_ERROR(Check(args));
  if (args.tokens == 0) return absl::OkStatus();
  if (stream.device == Device::kCpu) {
    internal::EmbedCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Embed", internal::EmbedCuda(args, stream));
#else
  return NoCudaSide("Embed");
#endif
}

}  // namespace triptych::kernels
