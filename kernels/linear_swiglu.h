#pragma once

// out = silu(x Wg^T + bg) * (x Wu^T + bu) for many rows in one kernel, in bfloat16: what the CUDA
// side of linear.h's kSwiGlu can call where the library's product would be followed by SwiGlu. The
// sums are float32; gate and up are rounded to bfloat16 before the activation, as if stored.

#include <cstdint>

#include "kernels/stream.h"

namespace triptych::kernels::internal {

// Pointers lie on the device, 16-byte aligned; strides, inputs and n are multiples of 8.
struct SwiGluProductArgs {
  const void* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t x_stride = 0;
  const void* weight = nullptr;  // [2n, inputs]: gates, then ups
  int64_t n = 0;
  const void* bias = nullptr;  // null, or [2n]
  void* out = nullptr;         // [rows, n]
  int64_t out_stride = 0;
};

// Enqueues; answers a cudaError_t.
int SwiGluProductCuda(const SwiGluProductArgs& args, const Stream& stream);

}  // namespace triptych::kernels::internal
