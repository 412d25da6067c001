// One block a row; the row stays in registers between the two passes where it fits. The order of
// the sum depends on `hidden` and alignment alone.

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/rms_norm.h"

namespace triptych::kernels {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kWarpSize = 32;
// Vectors a thread keeps: 512 threads x 4 x 16 bytes hold a row of 16,384 bf16 or 8,192 float32.
constexpr int kKeptVectors = 4;
// Vectors a thread is given while there are threads: more leave room for more rows at a time, fewer
// end a single row sooner (bench/gpu/README.md).
constexpr int kPlannedVectors = 3;

// Sum over the block, the same value in every thread.
__device__ float BlockSum(float value) {
  __shared__ float warp_sums[kMaxThreads / kWarpSize];
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(~0u, value, offset);
  }
  if (threadIdx.x % kWarpSize == 0) warp_sums[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarpSize; ++warp) {
    sum += warp_sums[warp];
  }
  return sum;
}

// Reads vector `index` of the row; with a residual, adds it and writes the rounded sum back.
template <typename T, int kVector>
__device__ void LoadSum(const T* x, T* residual, int64_t index, float (&value)[kVector]) {
  LoadPack(x + index * kVector, value);
  if (residual == nullptr) return;
  float other[kVector];
  LoadPack(residual + index * kVector, other);
#pragma unroll
  for (int i = 0; i < kVector; ++i) value[i] = Widen(Narrow<T>(other[i] + value[i]));
  StorePack(value, residual + index * kVector);
}

template <int kVector>
__device__ float SquareSum(const float (&value)[kVector], float sum) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum += value[i] * value[i];
  return sum;
}

template <typename T, int kVector>
__device__ void StoreScaled(float (&value)[kVector], float factor, const T* weight, T* out) {
  float scale[kVector];
  LoadPack(weight, scale);
#pragma unroll
  for (int i = 0; i < kVector; ++i) value[i] = value[i] * factor * scale[i];
  StorePack(value, out);
}

template <typename T, int kVector, bool kKept>
__global__ void __launch_bounds__(kMaxThreads) RmsNormKernel(const RmsNormArgs args) {
  const T* x = static_cast<const T*>(args.x) + blockIdx.x * args.x_stride;
  T* out = static_cast<T*>(args.out) + blockIdx.x * args.out_stride;
  T* residual = args.residual == nullptr
                    ? nullptr
                    : static_cast<T*>(args.residual) + blockIdx.x * args.residual_stride;
  const T* weight = static_cast<const T*>(args.weight);
  const int vectors = static_cast<int>(args.hidden / kVector);
  const int step = static_cast<int>(blockDim.x);
  const int first = static_cast<int>(threadIdx.x);
  const float inverse_hidden = 1.0f / static_cast<float>(args.hidden);

  float sum = 0;
  if constexpr (kKept) {
    float kept[kKeptVectors][kVector];
#pragma unroll
    for (int k = 0; k < kKeptVectors; ++k) {
      if (first + k * step < vectors) LoadSum(x, residual, first + k * step, kept[k]);
    }
#pragma unroll
    for (int k = 0; k < kKeptVectors; ++k) {
      if (first + k * step < vectors) sum = SquareSum(kept[k], sum);
    }
    const float factor = 1.0f / sqrtf(BlockSum(sum) * inverse_hidden + args.eps);
#pragma unroll
    for (int k = 0; k < kKeptVectors; ++k) {
      const int64_t at = static_cast<int64_t>(first + k * step) * kVector;
      if (first + k * step < vectors) StoreScaled(kept[k], factor, weight + at, out + at);
    }
  } else {
    float value[kVector];
    for (int v = first; v < vectors; v += step) {
      LoadSum(x, residual, v, value);
      sum = SquareSum(value, sum);
    }
    const float factor = 1.0f / sqrtf(BlockSum(sum) * inverse_hidden + args.eps);
    const T* source = residual == nullptr ? x : residual;
    for (int v = first; v < vectors; v += step) {
      const int64_t at = static_cast<int64_t>(v) * kVector;
      LoadPack(source + at, value);
      StoreScaled(value, factor, weight + at, out + at);
    }
  }
}

template <typename T, int kVector>
void Launch(const RmsNormArgs& args, cudaStream_t stream) {
  const int64_t vectors = args.hidden / kVector;
  // Never chosen by `rows`: the order of the sum would follow the batch.
  const int64_t busy = (vectors + kPlannedVectors - 1) / kPlannedVectors;
  const int64_t whole_warps = (busy + kWarpSize - 1) / kWarpSize * kWarpSize;
  const int threads = static_cast<int>(std::min<int64_t>(whole_warps, kMaxThreads));
  const unsigned rows = static_cast<unsigned>(args.rows);
  if (vectors <= int64_t{threads} * kKeptVectors) {
    RmsNormKernel<T, kVector, true><<<rows, threads, 0, stream>>>(args);
  } else {
    RmsNormKernel<T, kVector, false><<<rows, threads, 0, stream>>>(args);
  }
}

template <typename T>
void LaunchAligned(const RmsNormArgs& args, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  const bool aligned = IsAligned(args.x, 16) && IsAligned(args.weight, 16) &&
                       IsAligned(args.out, 16) && IsAligned(args.residual, 16) &&
                       args.hidden % kVector == 0 && args.x_stride % kVector == 0 &&
                       args.out_stride % kVector == 0 && args.residual_stride % kVector == 0;
  if (aligned) {
    Launch<T, kVector>(args, stream);
  } else {
    Launch<T, 1>(args, stream);
  }
}

}  // namespace

int internal::RmsNormCuda(const RmsNormArgs& args, const Stream& on) {
  const cudaStream_t stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  if (args.rows > INT32_MAX || args.hidden > INT32_MAX) return cudaErrorInvalidValue;
  if (args.dtype == DType::kFloat32) {
    LaunchAligned<float>(args, stream);
  } else {
    LaunchAligned<__nv_bfloat16>(args, stream);
  }
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
