#include "kernels/attention.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Check(const AttentionArgs& args) {
  const KvLayout& layout = args.layout;
  const AttentionPlan& plan = *args.plan;
  if (!(plan.layout() == layout) || plan.num_blocks() != args.num_blocks ||
      plan.heads() != args.heads) {
    return absl::InvalidArgumentError("AppendAndAttend: a plan of another shape");
  }
  if (args.qkv == nullptr || args.out == nullptr || args.pool == nullptr || args.rope == nullptr ||
      args.positions == nullptr || args.slots == nullptr) {
    return absl::InvalidArgumentError("AppendAndAttend: null pointer");
  }
  const int64_t out_width = int64_t{args.heads} * layout.head_dim;
  const int64_t qkv_width = out_width + 2 * layout.token_elements();
  if (args.qkv_stride < qkv_width || args.out_stride < out_width || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("AppendAndAttend: strides ", args.qkv_stride, " and ", args.out_stride,
                     " for ", qkv_width, " and ", out_width, ", ", DTypeName(args.dtype)));
  }
  return absl::OkStatus();
}

absl::Status Append(const AttentionArgs& args, const Stream& stream) {
  auto* qkv = static_cast<uint8_t*>(args.qkv);
  const int64_t k = int64_t{args.heads} * args.layout.head_dim * SizeOf(args.dtype);
  const int64_t v = k + args.layout.token_elements() * SizeOf(args.dtype);
  return RopeAppend({.q = qkv,
                     .k = qkv + k,
                     .v = qkv + v,
                     .q_stride = args.qkv_stride,
                     .k_stride = args.qkv_stride,
                     .v_stride = args.qkv_stride,
                     .positions = args.positions,
                     .slots = args.slots,
                     .pages = args.pool,
                     .num_blocks = args.num_blocks,
                     .layout = args.layout,
                     .tokens = args.plan->rows().tokens,
                     .heads = args.heads,
                     .dtype = args.dtype,
                     .table = args.rope},
                    stream);
}

}  // namespace

absl::Status AppendAndAttend(const AttentionArgs& given, const Stream& stream) {
  if (given.plan == nullptr) {
    return absl::InvalidArgumentError("AppendAndAttend: a plan must be given");
  }
  if (given.plan->rows().tokens == 0) return absl::OkStatus();
  AttentionArgs args = given;
  const int64_t out_width = int64_t{args.heads} * args.layout.head_dim;
  if (args.out_stride == 0) args.out_stride = out_width;
  if (args.qkv_stride == 0) args.qkv_stride = out_width + 2 * args.layout.token_elements();
  RETURN_IF_ERROR(Check(args));
  if (stream.device == Device::kCpu) {
    RETURN_IF_ERROR(Append(args, stream));
    internal::PagedAttentionCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("AppendAndAttend", internal::AppendAndAttendCuda(args, stream));
#else
  return NoCudaSide("AppendAndAttend");
#endif
}

}  // namespace triptych::kernels
