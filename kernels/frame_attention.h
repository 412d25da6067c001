#pragma once

// The CUDA side of segment attention for long segments: FlashInfer's kernel for Hopper, with head
// sizes that it does not know. For the CUDA side of segment_attention.h alone; the file that
// includes FlashInfer may be absent from a build.

#include "kernels/segment_attention.h"

namespace triptych::kernels::internal {

// Heads are computed as if they were as wide as this; columns that are not there count as zeros.
inline constexpr int kMaxFrameHeadDim = 96;

// Checked arguments of bfloat16, 16-byte aligned, head_dim a multiple of 8 up to kMaxFrameHeadDim;
// nothing is rotated. Answers a cudaError_t.
int FrameAttentionCuda(const SegmentAttentionArgs& args, const Stream& stream);

}  // namespace triptych::kernels::internal
