#pragma once

// Rotary embedding with given angles, in place: pairs (i, i + head_dim / 2) of every head of a
// token turn by the token's angle i. The vision tower's 2-D rotary: half of the angles go with the
// row, half with the column, and a table is made once an item (RopeSineCosine). float32 arithmetic,
// one rounding to bfloat16; on the CPU the same bits everywhere, on CUDA within 1e-6 before the
// rounding. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// Pointers are borrowed and lie in the memory of the stream's device.
struct RotateArgs {
  void* x = nullptr;     // [tokens, heads, head_dim]
  int64_t x_stride = 0;  // elements from token to token; 0 stands for heads * head_dim
  int64_t tokens = 0;
  int heads = 0;
  int head_dim = 0;                // even
  const float* cosines = nullptr;  // [tokens, head_dim / 2]
  const float* sines = nullptr;    // [tokens, head_dim / 2]
  DType dtype = DType::kFloat32;   // of x
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size, stride or type. Unimplemented: CUDA in a build without it. Internal:
// the launch failed.
absl::Status Rotate(const RotateArgs& args, const Stream& stream);

namespace internal {
// Checked arguments with something to do, strides filled in. The CUDA one answers a cudaError_t.
void RotateCpu(const RotateArgs& args, ThreadPool* pool);
int RotateCuda(const RotateArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
