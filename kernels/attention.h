#pragma once

// Softmax attention over paged KV: a ragged batch of prefill chunks and decode steps, causal,
// grouped queries. Rotary and the appending of K and V belong to it, so that a device can fuse
// them.
//
// On the CPU: online softmax (Milakov and Gimelshein) over tiles of 16 keys counted from the
// sequence's first key, in float32: a query's bits depend on its own keys alone, never on the chunk
// or batch it came in, and nothing of a key that it may not see reaches it, not even a NaN.
// Against float64: 1e-5 of the largest value in float32. On CUDA in bfloat16: 1e-2. A NaN in a
// query, or in a key or value that it sees, makes its output NaN. Stateless.

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_layout.h"
#include "kernels/rope_append.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// Pointers are borrowed and, but for `rope` and `plan`, lie in the memory of the stream's device.
// Strides count elements from token to token; 0 stands for the width.
struct AttentionArgs {
  // [tokens, heads + 2 kv_heads (Q, K, V), head_dim]; Q is rotated in place, K may be.
  void* qkv = nullptr;
  int64_t qkv_stride = 0;
  void* out = nullptr;  // [tokens, heads, head_dim]
  int64_t out_stride = 0;
  int heads = 0;         // a multiple of layout.kv_heads
  void* pool = nullptr;  // this layer's, [num_blocks, 2, block_tokens, kv_heads, head_dim]
  int64_t num_blocks = 0;
  KvLayout layout;
  const RopeTable* rope = nullptr;
  const int32_t* positions = nullptr;  // [3, tokens], rows t, h, w
  // [tokens]: block * block_tokens + row, each at most once; negative: K and V are not stored.
  const int32_t* slots = nullptr;
  const AttentionPlan* plan = nullptr;  // of this step, made for the same layout, pool and heads
  DType dtype = DType::kFloat32;        // of qkv and out
};

// Rotates Q and K, appends K and V to their pages, then attends: every query sees the tokens of its
// row up to and with itself. Enqueues on a CUDA stream and does not synchronise; done on return on
// the CPU. InvalidArgument: a null pointer, a bad size, a plan of another shape; on the CPU also a
// slot past the pool. Unimplemented: CUDA in a build without it. Internal: the launch failed.
absl::Status AppendAndAttend(const AttentionArgs& args, const Stream& stream);

namespace internal {
// Checked arguments, strides filled in. The CPU's is the second half of the op, behind RopeAppend;
// the CUDA one answers a cudaError_t.
void PagedAttentionCpu(const AttentionArgs& args, ThreadPool* pool);
int AppendAndAttendCuda(const AttentionArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
