#pragma once

// RMS norm over the last dimension: out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich,
// "Root Mean Square Layer Normalization"), with the residual addition before it fused on request.
//
// The sum of squares is a float32 in a fixed order that depends on `hidden` alone, so a row's
// result does not depend on the other rows. Against float64: 2e-6 relative for float32, one
// rounding to bfloat16 more for bfloat16. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// Pointers are borrowed and lie in the memory of the stream's device. Strides count elements from
// row to row; 0 stands for `hidden`.
struct RmsNormArgs {
  const void* x = nullptr;       // [rows, hidden]
  const void* weight = nullptr;  // [hidden]
  void* out = nullptr;           // [rows, hidden]; may be `x`
  // Null, or [rows, hidden]: the running sum of a transformer. It becomes residual + x (rounded to
  // `dtype`), and that sum is what is normalised. May be neither `x` nor `out`.
  void* residual = nullptr;
  int64_t rows = 0;
  int64_t hidden = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  int64_t residual_stride = 0;
  float eps = 1e-6f;
  DType dtype = DType::kFloat32;  // of everything above
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument:
// a null pointer, a size below 1 (rows may be 0) or a stride below `hidden`. Unimplemented: CUDA in
// a build without it. Internal: the launch failed.
absl::Status RmsNorm(const RmsNormArgs& args, const Stream& stream);

namespace internal {
// Checked arguments, strides filled in. The CUDA one answers a cudaError_t.
void RmsNormCpu(const RmsNormArgs& args, ThreadPool* pool);
int RmsNormCuda(const RmsNormArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
