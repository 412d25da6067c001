#pragma once

// Products of few rows (1 to 64) with bf16 weights on CUDA: what a decode step consists of. One
// kernel streams the weights once through shared memory (bulk tensor copies into a ring) and does
// everything else that lies between two products on the way: RMS norm of the input, bias, residual
// addition, SwiGLU. No CUDA header; interface of kernels/ alone.
//
// Accumulation in float32; a result does not depend on the other rows.

#include <cstdint>

namespace triptych::kernels {

// Pointers lie on the device. Strides count elements.
struct DecodeLinearArgs {
  const void* x = nullptr;  // [rows, inputs] bf16, 16-byte aligned rows
  int64_t rows = 0;         // 1 .. 64
  int64_t x_stride = 0;
  const void* weights = nullptr;  // [outputs, inputs] bf16; inputs a multiple of 8
  int64_t inputs = 0;
  int64_t outputs = 0;
  const void* bias = nullptr;      // null or [outputs] bf16
  const void* residual = nullptr;  // null or as y, bf16, added; may be y
  const void* norm = nullptr;      // null or [inputs] bf16: x is RMS-normalised with it first
  float norm_eps = 1e-6f;
  // y[i] = silu(product[i]) * product[outputs / 2 + i], [rows, outputs / 2]; without bias and
  // residual.
  bool swiglu = false;
  void* y = nullptr;
  int64_t y_stride = 0;
  bool float_output = false;  // y is float32 instead of bf16
};

// How the kernel is cut: which of kDecodeTiles, into how many parts the sum over the inputs, how
// many stages the ring has, and how many stages before its last load the next kernel may start.
struct DecodeLinearChoice {
  int tile = 0;
  int split = 1;  // blocks of a cluster that share a tile: 1, 2, 4 or 8
  int stages = 4;
  int trigger = 0;  // large: at once
};

// Rows of weights in a tile, and 64-wide boxes of inputs in a stage.
struct DecodeTile {
  int chunk;
  int chunks;
  int boxes;
  constexpr int rows() const { return chunk * chunks; }
};
inline constexpr DecodeTile kDecodeTiles[] = {
    {32, 1, 4}, {40, 1, 4}, {32, 2, 2}, {40, 2, 1},  {48, 2, 1},
    {56, 2, 1}, {64, 2, 1}, {72, 2, 1}, {80, 2, 1},  {88, 2, 1},
    {56, 2, 2}, {72, 2, 2}, {96, 2, 1}, {112, 2, 1}, {144, 2, 1},
};
inline constexpr int64_t kMaxDecodeRows = 64;
inline constexpr int kNumDecodeTiles = sizeof(kDecodeTiles) / sizeof(kDecodeTiles[0]);

namespace internal {
// Shared memory of one block in bytes.
int64_t DecodeLinearSharedBytes(const DecodeLinearArgs& args, const DecodeLinearChoice& choice);
// False: the choice does not fit the shape (shared memory, split, SwiGLU of one chunk).
bool DecodeLinearFits(const DecodeLinearArgs& args, const DecodeLinearChoice& choice, int sm_count);
// A choice for a shape that nobody has measured. False: the kernel cannot do the shape.
bool DecodeLinearRule(const DecodeLinearArgs& args, int sm_count, DecodeLinearChoice* choice);
// Enqueues; answers a cudaError_t. `pdl`: the kernel may start before its predecessor has ended.
int DecodeLinearCuda(const DecodeLinearArgs& args, const DecodeLinearChoice& choice, int sm_count,
                     bool pdl, void* stream);
}  // namespace internal

}  // namespace triptych::kernels
