#pragma once

// FlashInfer's persistent prefill kernels (warp-specialised wgmma; KV gathered from pages by
// cp.async, or read in place by the bulk copy engine) for one head size. Instantiated by a file a
// head size, which compile apart.

#include <cuda_bf16.h>

#include <cmath>
#include <flashinfer/attention/hopper/prefill_sm90.cuh>
#include <flashinfer/attention/hopper/variants.cuh>
#include <flashinfer/attention/mask.cuh>

#include "kernels/prefill_attention.h"

namespace triptych::kernels::prefill {

// The names are the library's.
struct Params {
  using DTypeQ = cutlass::bfloat16_t;
  using DTypeKV = cutlass::bfloat16_t;
  using DTypeO = cutlass::bfloat16_t;
  using IdType = int32_t;
  struct AdditionalParams {
    float sm_scale;
  };

  DTypeQ* q_ptr;
  DTypeKV* k_ptr;
  DTypeKV* v_ptr;
  DTypeO* o_ptr;
  float* lse_ptr;
  IdType *work_indptr, *qo_tile_indices, *qo_indptr, *kv_indptr, *qo_lens, *kv_lens, *head_indices,
      *batch_indices, *kv_indices;
  AdditionalParams additional_params;
  int64_t q_stride_n, k_stride_n, v_stride_n, o_stride_n;
  int64_t q_stride_h, k_stride_h, v_stride_h, o_stride_h;
  int64_t nnz_qo, nnz_kv, k_page_stride, v_page_stride;
  int num_qo_heads, num_kv_heads, group_size, page_size, window_left;
  bool causal;
};

inline int32_t* Mutable(const int32_t* array) { return const_cast<int32_t*>(array); }

// What both kinds of KV share.
template <int kHeadDim>
Params ParamsOf(const internal::PrefillAttentionArgs& args) {
  Params params = {};
  params.q_ptr = static_cast<cutlass::bfloat16_t*>(args.q);
  params.o_ptr = static_cast<cutlass::bfloat16_t*>(args.out);
  params.work_indptr = Mutable(args.work_begin);
  params.qo_tile_indices = Mutable(args.tile);
  params.qo_indptr = Mutable(args.query_begin);
  params.qo_lens = Mutable(args.queries);
  params.kv_lens = Mutable(args.keys);
  params.head_indices = Mutable(args.head);
  params.batch_indices = Mutable(args.row);
  params.additional_params.sm_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  params.q_stride_n = args.q_stride;
  params.o_stride_n = args.out_stride;
  params.q_stride_h = params.k_stride_h = params.v_stride_h = params.o_stride_h = kHeadDim;
  params.nnz_qo = args.tokens;
  params.num_qo_heads = args.heads;
  params.num_kv_heads = args.kv_heads;
  params.group_size = args.heads / args.kv_heads;
  params.window_left = -1;
  params.causal = true;
  return params;
}

// K and V of the batch's own tokens: a row's begin where its queries do.
template <int kHeadDim>
int RunFresh(const internal::PrefillAttentionArgs& args, cudaStream_t stream) {
  Params params = ParamsOf<kHeadDim>(args);
  params.k_ptr = static_cast<cutlass::bfloat16_t*>(args.k);
  params.v_ptr = static_cast<cutlass::bfloat16_t*>(args.v);
  params.kv_indptr = params.qo_indptr;
  params.k_stride_n = params.v_stride_n = args.q_stride;
  params.nnz_kv = args.tokens;
  return flashinfer::BatchPrefillWithRaggedKVCacheDispatched<
      kHeadDim, kHeadDim, flashinfer::MaskMode::kCausal, /*LEFT_SLIDING_WINDOW=*/false,
      /*SAME_SCHEDULE_FOR_ALL_HEADS=*/false, flashinfer::StandardAttention>(
      params, /*enable_pdl=*/false, stream);
}

template <int kHeadDim>
int Run(const internal::PrefillAttentionArgs& args, cudaStream_t stream) {
  if (args.k != nullptr) return RunFresh<kHeadDim>(args, stream);
  const int64_t token = int64_t{args.kv_heads} * kHeadDim, half_page = args.block_tokens * token;
  auto* pool = static_cast<cutlass::bfloat16_t*>(args.pool);
  Params params = ParamsOf<kHeadDim>(args);
  params.k_ptr = pool;
  params.v_ptr = pool + half_page;
  params.kv_indptr = Mutable(args.page_begin);
  params.kv_indices = Mutable(args.pages);
  params.k_stride_n = params.v_stride_n = token;
  params.k_page_stride = params.v_page_stride = 2 * half_page;
  params.page_size = args.block_tokens;
  return flashinfer::BatchPrefillWithPagedKVCacheDispatched<
      kHeadDim, kHeadDim, flashinfer::MaskMode::kCausal, /*LEFT_SLIDING_WINDOW=*/false,
      /*SAME_SCHEDULE_FOR_ALL_HEADS=*/false, flashinfer::StandardAttention>(
      params, /*enable_pdl=*/false, stream);
}

}  // namespace triptych::kernels::prefill
