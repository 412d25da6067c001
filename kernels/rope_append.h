#pragma once

// Multimodal rotary embedding of Q and K, then K and V appended to a layer's pages: the step
// between the fused QKV projection and attention. Rotation is of halves, pairs (i, i + head_dim/2)
// (Su et al., "RoFormer"); a frequency belongs to the time, height or width position by its section
// (Wang et al., "Qwen2-VL", multimodal RoPE).
//
// angle = float32(position) * inv_freq[i] in float32, as PyTorch models do; its sine and cosine are
// evaluated in float64 by our own polynomial and rounded to float32 (within 0.51 ulp of the exact
// value of that angle for |angle| < 2^20), so they are the same bits on every CPU. The rotation
// itself is float32. Against float64 with the same angle: 1e-6 of the pair's norm; then one
// rounding to the storage type. A token's result depends on no other token.
// Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

inline constexpr int kMaxRopeHeadDim = 256;

// The frequencies of one model, made once. Lives on the host for both devices and is copied into
// the launch, so it may go out of scope after the call.
struct RopeTable {
  int head_dim = 0;
  float inv_freq[kMaxRopeHeadDim / 2] = {};
  uint8_t axis[kMaxRopeHeadDim / 2] = {};  // row of `positions`: 0 t, 1 h, 2 w
};

// inv_freq[i] = 1 / theta^(2i / head_dim), each step rounded to float32. `mrope_section` holds how
// many of the head_dim / 2 frequencies belong to t, h and w, in this order; empty means all to t
// (plain text models). InvalidArgument: head_dim odd, below 2 or above 256; theta not above 0;
// sections that are not three, negative or do not sum to head_dim / 2.
absl::StatusOr<RopeTable> MakeRopeTable(int head_dim, double theta,
                                        absl::Span<const int> mrope_section);

// Pointers are borrowed and, but for `table`, lie in the memory of the stream's device. Strides
// count elements from token to token, so q, k and v may be columns of one fused projection.
struct RopeAppendArgs {
  void* q = nullptr;  // [tokens, heads, head_dim], rotated in place; may be null if heads is 0
  const void* k = nullptr;  // [tokens, kv_heads, head_dim]
  // Null, or the rotated keys of every token again, as k in shape and stride; may be k.
  void* rotated_k = nullptr;
  const void* v = nullptr;  // [tokens, kv_heads, head_dim], unchanged
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  const int32_t* positions = nullptr;  // [3, tokens], rows t, h, w
  int64_t positions_stride = 0;        // from row to row; 0 stands for `tokens`
  // [tokens]: block * block_tokens + row, each at most once; negative: K and V are not stored.
  const int32_t* slots = nullptr;
  void* pages = nullptr;  // this layer's pool, [num_blocks, 2, block_tokens, kv_heads, head_dim]
  int64_t num_blocks = 0;
  KvLayout layout;  // of `pages`; gives kv_heads, head_dim and the storage type
  int64_t tokens = 0;
  int heads = 0;
  DType dtype = DType::kFloat32;  // of q, k and v
  const RopeTable* table = nullptr;
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size or stride, a table of another head_dim; on the CPU also a slot past the
// pool (nothing is written then). On CUDA such a slot is not seen by the host and its token is not
// stored. Unimplemented: CUDA in a build without it. Internal: the launch failed.
absl::Status RopeAppend(const RopeAppendArgs& args, const Stream& stream);

namespace internal {
// Checked arguments, strides filled in. The CUDA one answers a cudaError_t.
void RopeAppendCpu(const RopeAppendArgs& args, ThreadPool* pool);
int RopeAppendCuda(const RopeAppendArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
