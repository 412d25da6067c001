#pragma once

// The inner loops of every CPU op, compiled once for each instruction set from one body
// (cpu_math_body.h) and chosen at start. All variants give the same bits: 16 lanes, explicit fused
// multiply-adds, sums over k in ascending order, horizontal sums in one tree. Not an interface for
// models: they call the ops (linear.h, attention.h, ...). Thread-safe, no state.

#include <cstdint>

#include "kernels/kv_layout.h"

namespace triptych::kernels {

// Columns of one weight panel, lanes of one vector, keys of one attention tile.
inline constexpr int kLanes = 16;

// C[m, n] = (bias[n]) + (residual[m, n]) + sum over k, ascending, of A[m, k] * B[k, n], the sum
// taken first as a chain of fmaf from 0. B lies in panels: [num_panels][k][16].
struct GemmCall {
  const float* a = nullptr;
  int64_t a_stride = 0;
  const void* panels = nullptr;
  DType panel_type = DType::kBFloat16;
  int64_t k = 0;
  int64_t rows = 0;
  int64_t columns = 0;  // of these panels; the last one may be partial
  float* c = nullptr;   // [rows, columns]
  int64_t c_stride = 0;
  const float* bias = nullptr;      // [columns] or null
  const float* residual = nullptr;  // [rows, columns] with c_stride, or null; may be c
};

// Softmax attention of `rows` queries over one list of keys, online over tiles of 16 keys counted
// from key 0, so a row's bits depend on its own limit alone.
struct AttentionCall {
  const float* queries = nullptr;  // [rows, head_dim]
  int rows = 0;
  int head_dim = 0;
  // [rows], ascending: row i sees keys [0, limits[i]), at least one. Others do not reach it.
  const int32_t* limits = nullptr;
  const void* const* keys = nullptr;    // [num_keys] rows of head_dim
  const void* const* values = nullptr;  // [num_keys]
  int32_t num_keys = 0;
  DType type = DType::kFloat32;  // of keys and values
  float scale = 1;
  float* output = nullptr;   // [rows, padded head_dim]; see PaddedLanes
  float* scratch = nullptr;  // AttentionScratchFloats(rows, head_dim)
};

inline constexpr int64_t PaddedLanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
// Tiles of keys whose scores are computed together when rows are few.
inline constexpr int kTilesAtOnce = 4;
inline constexpr int64_t AttentionScratchFloats(int64_t rows, int64_t head_dim) {
  return (kTilesAtOnce + 1) * kLanes * PaddedLanes(head_dim) + rows * (kTilesAtOnce * kLanes + 2);
}

struct CpuMath {
  const char* name;
  void (*gemm)(const GemmCall& call);
  void (*attend)(const AttentionCall& call);
  // y = gate / (1 + exp(-gate)) * up.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* y);
  // y = x / 2 * (1 + erf(x / sqrt 2)); error of erf below 2e-7 (Abramowitz and Stegun 7.1.26).
  void (*gelu)(const float* x, int64_t n, float* y);
  // y = e^x; 0 below -87, NaN for NaN.
  void (*exp)(const float* x, int64_t n, float* y);
  // y[i] = Gumbel(seed, index, 64 * block + i) of gumbel.h, i < 64.
  void (*gumbel)(uint64_t seed, uint64_t index, uint32_t block, float* y);
};

// The best variant that this machine runs.
const CpuMath& BestCpuMath();
// Every variant that this machine runs, the portable one first; for tests. Returns how many.
int RunnableCpuMath(const CpuMath* variants[3]);

}  // namespace triptych::kernels
