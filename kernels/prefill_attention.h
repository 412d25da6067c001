#pragma once

// The CUDA side of attention for rows of more than one query: FlashInfer's paged kernel for Hopper.
// For the CUDA side of attention.h alone. The files that include FlashInfer may be absent from a
// build; TRIPTYCH_FLASHINFER says that they are there.

#include <cstdint>

namespace triptych::kernels::internal {

// Of bfloat16, pages of which are [2, block_tokens, kv_heads, head_dim]. Arrays as in PrefillCut,
// on the device; strides count elements.
struct PrefillAttentionArgs {
  void* q = nullptr;  // [tokens, heads, head_dim]
  int64_t q_stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  int64_t tokens = 0;
  int heads = 0, kv_heads = 0, block_tokens = 0;
  void* pool = nullptr;
  const int32_t* pages = nullptr;  // of the batch
  // Not null where every row begins with its first token: K and V as q in shape (kv_heads) and
  // stride, which are read instead of the pages, by the bulk copy engine.
  void* k = nullptr;
  void* v = nullptr;
  const int32_t *work_begin = nullptr, *tile = nullptr, *query_begin = nullptr,
                *page_begin = nullptr, *queries = nullptr, *keys = nullptr, *head = nullptr,
                *row = nullptr;
};

// Queries of one tile, which the library chose for a head size; 0: no kernel of that size.
inline constexpr int32_t PrefillTileQueries(int head_dim) {
  return head_dim == 128 ? 128 : head_dim == 64 ? 192 : 0;
}

// Enqueue; answer a cudaError_t.
int PrefillAttention64(const PrefillAttentionArgs& args, void* cuda_stream);
int PrefillAttention128(const PrefillAttentionArgs& args, void* cuda_stream);

}  // namespace triptych::kernels::internal
