#pragma once

// y = x W^T + bias (+ residual): the matrix product of every layer, float32 activations against
// bfloat16 or float32 weights that were packed once into panels of 16 columns.
//
// Each output is a chain of fused multiply-adds over k in ascending order, in float32, then the
// bias, then the residual: bitwise the same for any number of rows, threads and instruction sets.
// CPU only. The weights are immutable after packing; Linear is safe from any thread.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

struct LinearWeights {
  int64_t inputs = 0;
  int64_t outputs = 0;
  DType type = DType::kBFloat16;
  // [ceil(outputs / 16)][inputs][16], zeros beyond the last output.
  std::vector<uint8_t> panels;
  std::vector<float> bias;  // [outputs], or empty
};

// A row-major [outputs, inputs] matrix; borrowed, any alignment.
struct LinearSource {
  const void* bytes = nullptr;
  int64_t outputs = 0;
};

// Packs matrices of one type below each other: their outputs become columns of one product.
LinearWeights PackLinear(absl::Span<const LinearSource> parts, int64_t inputs, DType type);

struct LinearArgs {
  const float* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  int64_t x_stride = 0;             // elements; 0 stands for inputs
  float* y = nullptr;               // [rows, outputs]
  int64_t y_stride = 0;             // elements; 0 stands for outputs
  const float* residual = nullptr;  // null, or as y; may be y
};

// InvalidArgument: a null pointer with rows > 0, or a stride below the width. Unimplemented on
// CUDA.
absl::Status Linear(const LinearWeights& weights, LinearArgs args, const Stream& stream);

namespace internal {
void LinearCpu(const LinearWeights& weights, const LinearArgs& args, ThreadPool* pool);
}  // namespace internal

}  // namespace triptych::kernels
