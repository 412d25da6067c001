#pragma once

// The CUDA side of segment attention where every segment is a window of at most 64 tokens: a block
// holds whole windows, so Q and K are rotated on their way in and no softmax is corrected.

#include "kernels/segment_attention.h"

namespace triptych::kernels::internal {

inline constexpr int32_t kMaxWindow = 64;

inline constexpr bool HasWindowAttention(int head_dim) { return head_dim == 64 || head_dim == 80; }

// Checked arguments of bfloat16, 16-byte aligned, segments of at most kMaxWindow tokens and
// HasWindowAttention(head_dim). Answers a cudaError_t.
int WindowAttentionCuda(const SegmentAttentionArgs& args, const Stream& stream);

}  // namespace triptych::kernels::internal
