// Rows of one query by our own kernel where it knows the shape, everything in one launch; the
// others: rotary and append, then FlashInfer's kernel over the pages.

#include <cuda_runtime.h>

#include "kernels/attention.h"
#include "kernels/attention_plan_cuda.h"
#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/prefill_attention.h"

namespace triptych::kernels {
namespace {

// Tokens from the first chunk's on.
int Append(const AttentionArgs& args, const internal::CudaAttentionPlan& plan,
           const Stream& stream) {
  const int64_t first = plan.first_prefill_token;
  auto* qkv = static_cast<__nv_bfloat16*>(args.qkv) + first * args.qkv_stride;
  const int64_t k = int64_t{args.heads} * args.layout.head_dim;
  return internal::RopeAppendCuda({.q = qkv,
                                   .k = qkv + k,
                                   .rotated_k = plan.fresh ? qkv + k : nullptr,
                                   .v = qkv + k + args.layout.token_elements(),
                                   .q_stride = args.qkv_stride,
                                   .k_stride = args.qkv_stride,
                                   .v_stride = args.qkv_stride,
                                   .positions = args.positions + first,
                                   .positions_stride = args.plan->rows().tokens,
                                   .slots = args.slots + first,
                                   .pages = args.pool,
                                   .num_blocks = args.num_blocks,
                                   .layout = args.layout,
                                   .tokens = args.plan->rows().tokens - first,
                                   .heads = args.heads,
                                   .dtype = args.dtype,
                                   .table = args.rope},
                                  stream);
}

int Decode(const AttentionArgs& args, const Stream& stream) {
  const internal::DecodeCut& cut = internal::CudaPlanOf(*args.plan).decode;
  return internal::DecodeAttentionCuda({.qkv = args.qkv,
                                        .qkv_stride = args.qkv_stride,
                                        .out = args.out,
                                        .out_stride = args.out_stride,
                                        .heads = args.heads,
                                        .pool = args.pool,
                                        .num_blocks = args.num_blocks,
                                        .layout = args.layout,
                                        .rope = args.rope,
                                        .positions = args.positions,
                                        .positions_stride = args.plan->rows().tokens,
                                        .slots = args.slots,
                                        .pages = args.plan->rows().device.pages,
                                        .parts = cut.device,
                                        .capacity = cut.used,
                                        .partial = cut.partial,
                                        .arrived = cut.arrived},
                                       cut.choice, stream.cuda != nullptr && stream.cuda->pdl,
                                       CudaStreamOf(stream));
}

int Prefill([[maybe_unused]] const AttentionArgs& args, [[maybe_unused]] const Stream& stream) {
#ifdef TRIPTYCH_FLASHINFER
  const internal::CudaAttentionPlan& plan = internal::CudaPlanOf(*args.plan);
  const PrefillCut& cut = plan.cut;
  auto* k = static_cast<__nv_bfloat16*>(args.qkv) + int64_t{args.heads} * args.layout.head_dim;
  const internal::PrefillAttentionArgs prefill = {
      .q = args.qkv,
      .q_stride = args.qkv_stride,
      .out = args.out,
      .out_stride = args.out_stride,
      .tokens = args.plan->rows().tokens,
      .heads = args.heads,
      .kv_heads = args.layout.kv_heads,
      .block_tokens = args.layout.block_tokens,
      .pool = args.pool,
      .pages = args.plan->rows().device.pages,
      .k = plan.fresh ? k : nullptr,
      .v = plan.fresh ? k + args.layout.token_elements() : nullptr,
      .work_begin = plan.device + cut.work_begin(),
      .tile = plan.device + cut.tile(),
      .query_begin = plan.device + cut.query_begin(),
      .page_begin = plan.device + cut.page_begin(),
      .queries = plan.device + cut.queries(),
      .keys = plan.device + cut.keys(),
      .head = plan.device + cut.head(),
      .row = plan.device + cut.row()};
  void* cuda_stream = CudaStreamOf(stream);
  return args.layout.head_dim == 64 ? internal::PrefillAttention64(prefill, cuda_stream)
                                    : internal::PrefillAttention128(prefill, cuda_stream);
#else
  return cudaErrorNotSupported;
#endif
}

}  // namespace

int internal::AppendAndAttendCuda(const AttentionArgs& args, const Stream& stream) {
  constexpr int64_t kVector = 16 / sizeof(__nv_bfloat16);
  if (args.dtype != DType::kBFloat16) return cudaErrorNotSupported;
  if (!IsAligned(args.qkv, 16) || !IsAligned(args.out, 16) || !IsAligned(args.pool, 16) ||
      args.qkv_stride % kVector != 0 || args.out_stride % kVector != 0) {
    return cudaErrorMisalignedAddress;
  }
  const CudaAttentionPlan& plan = CudaPlanOf(*args.plan);
  if (plan.decode.used > 0) {
    if (const int error = Decode(args, stream)) return error;
  }
  if (plan.cut.works == 0) return cudaSuccess;
  if (const int error = Append(args, plan, stream)) return error;
  return Prefill(args, stream);
}

}  // namespace triptych::kernels
