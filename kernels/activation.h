#pragma once

// The nonlinear functions of the feed-forward layers, element by element. On the CPU with our own
// e^x, so the bits are the same on every CPU; computed in float32 and rounded once to bfloat16.
// On CUDA within 1e-6 of it before that rounding. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// Row r: out[i] = silu(gate[i]) * up[i], where gate is columns [0, n) and up columns [n, 2n) of
// gate_up [rows, 2n]; out is [rows, n]. Both in the memory of the stream's device, contiguous, not
// overlapping.
struct SwiGluArgs {
  const void* gate_up = nullptr;
  void* out = nullptr;
  int64_t rows = 0;
  int64_t n = 0;
  int64_t out_stride = 0;  // elements from row to row of `out`; 0 stands for n
  DType dtype = DType::kFloat32;
};

// The exact (erf) GELU of `count` values in place; error below 2e-7 of the input's magnitude in
// float32.
struct GeluArgs {
  void* x = nullptr;
  int64_t count = 0;
  DType dtype = DType::kFloat32;
};

// Enqueue on a CUDA stream and do not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size or type. Unimplemented: CUDA in a build without it. Internal: the launch
// failed.
absl::Status SwiGlu(const SwiGluArgs& args, const Stream& stream);
absl::Status Gelu(const GeluArgs& args, const Stream& stream);

namespace internal {
// Checked arguments with something to do. The CUDA ones answer a cudaError_t.
void SwiGluCpu(const SwiGluArgs& args, ThreadPool* pool);
void GeluCpu(const GeluArgs& args, ThreadPool* pool);
int SwiGluCuda(const SwiGluArgs& args, const Stream& stream);
int GeluCuda(const GeluArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
