#pragma once

// Softmax attention inside segments: the windows or whole frames of a vision tower. Every token
// sees exactly its own segment. Numerics as in attention.h, tiles counted from the segment's first
// token. Stateless.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// Pointers are borrowed and lie in the memory of the stream's device.
struct SegmentAttentionArgs {
  // [tokens, 3 (Q, K, V), heads, head_dim]. With angles Q and K are undefined afterwards.
  void* qkv = nullptr;
  void* out = nullptr;  // [tokens, heads, head_dim]
  int heads = 0;
  int head_dim = 0;
  // Segment i is tokens [offsets[i], offsets[i + 1]); the first is 0. On the host and, the same, in
  // the memory of the stream's device.
  absl::Span<const int32_t> offsets;
  const int32_t* device_offsets = nullptr;
  // [tokens, head_dim / 2] each, or both null: the angles that Q and K are rotated by first
  // (rotate.h), which a device does on the way.
  const float* cosines = nullptr;
  const float* sines = nullptr;
  DType dtype = DType::kFloat32;  // of qkv and out
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size or type, offsets that do not ascend from 0. Fewer than two offsets:
// nothing to do. Unimplemented: CUDA in a build without it. Internal: the launch failed.
absl::Status SegmentAttention(const SegmentAttentionArgs& args, const Stream& stream);

// The longest segment; 0 without one.
int32_t LongestSegment(absl::Span<const int32_t> offsets);

namespace internal {
// Checked arguments. The CUDA one answers a cudaError_t.
void SegmentAttentionCpu(const SegmentAttentionArgs& args, ThreadPool* pool);
int SegmentAttentionCuda(const SegmentAttentionArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
