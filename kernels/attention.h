#pragma once

// Softmax attention, two forms: over paged KV (a ragged batch of prefill chunks and decode steps,
// causal, grouped queries) and over segments (the windows or whole frames of a vision tower).
//
// Online softmax (Milakov and Gimelshein) over tiles of 16 keys counted from the sequence's or
// segment's first key, in float32: a query's bits depend on its own keys alone, never on the chunk
// or batch it came in. Against float64: 1e-5 of the largest value. CPU only. Stateless.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// Queries [query_begin, query_begin + count) of the batch are tokens [first_token, + count) of one
// sequence, whose KV up to and with themselves lies in `pages`.
struct AttentionRow {
  int64_t query_begin = 0;
  int32_t first_token = 0;
  int32_t count = 0;
  absl::Span<const int32_t> pages;
};

struct PagedAttentionArgs {
  const float* q = nullptr;  // [tokens, heads, head_dim]
  int64_t q_stride = 0;      // elements from token to token
  float* out = nullptr;      // [tokens, heads, head_dim]
  int64_t out_stride = 0;
  int heads = 0;               // a multiple of layout.kv_heads
  const void* pool = nullptr;  // this layer's, [num_blocks, 2, block_tokens, kv_heads, head_dim]
  int64_t num_blocks = 0;
  KvLayout layout;
  absl::Span<const AttentionRow> rows;
};

// InvalidArgument: a null pointer, heads no multiple of kv_heads, a page table that is too short or
// names a block outside the pool. Unimplemented on CUDA.
absl::Status PagedAttention(const PagedAttentionArgs& args, const Stream& stream);

struct SegmentAttentionArgs {
  const float* qkv = nullptr;  // [tokens, 3 (Q, K, V), heads, head_dim]
  float* out = nullptr;        // [tokens, heads, head_dim]
  int heads = 0;
  int head_dim = 0;
  // Ends of the segments, ascending: segment i is tokens [ends[i - 1], ends[i]).
  absl::Span<const int32_t> ends;
};

// Every token sees exactly its own segment. InvalidArgument: a null pointer, or ends that do not
// ascend. Unimplemented on CUDA.
absl::Status SegmentAttention(const SegmentAttentionArgs& args, const Stream& stream);

namespace internal {
void PagedAttentionCpu(const PagedAttentionArgs& args, ThreadPool* pool);
void SegmentAttentionCpu(const SegmentAttentionArgs& args, ThreadPool* pool);
}  // namespace internal

}  // namespace triptych::kernels
