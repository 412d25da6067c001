// Both are bound by memory: 16 bytes a load, two vectors a thread, all loads before the first
// store.

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/activation.h"
#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 2;
constexpr int64_t kTile = kThreads * kVectorsPerThread;

__device__ inline float Silu(float x) { return x / (1 + __expf(-x)); }

__device__ inline float GeluOf(float x) {
  constexpr float kInverseRootOfTwo = 0.70710678118654752f;
  return 0.5f * x * (1 + erff(x * kInverseRootOfTwo));
}

// What a launch of SwiGlu carries; sizes in vectors.
struct Gates {
  const void* gate_up;
  void* out;
  uint32_t n;
  uint32_t out_stride;
  int64_t total;  // rows * n
};

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) SwiGluKernel(const Gates in) {
  using Vector = Pack<T, kVector>;
  const auto* gate_up = static_cast<const Vector*>(in.gate_up);
  const int64_t first = blockIdx.x * kTile + threadIdx.x;
  Vector gate[kVectorsPerThread], up[kVectorsPerThread];
  int64_t to[kVectorsPerThread];
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const int64_t index = first + i * kThreads;
    to[i] = -1;
    if (index >= in.total) continue;
    const int64_t row = index <= UINT32_MAX ? static_cast<uint32_t>(index) / in.n : index / in.n;
    const int64_t column = index - row * in.n;
    gate[i] = gate_up[row * 2 * in.n + column];
    up[i] = gate_up[row * 2 * in.n + in.n + column];
    to[i] = row * in.out_stride + column;
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (to[i] < 0) continue;
    Vector result;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      result.value[k] = Narrow<T>(Silu(Widen(gate[i].value[k])) * Widen(up[i].value[k]));
    }
    static_cast<Vector*>(in.out)[to[i]] = result;
  }
}

template <typename T, int kVector>
int LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream) {
  const Gates in = {args.gate_up, args.out, static_cast<uint32_t>(args.n / kVector),
                    static_cast<uint32_t>(args.out_stride / kVector),
                    args.rows * (args.n / kVector)};
  const int64_t blocks = (in.total + kTile - 1) / kTile;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  SwiGluKernel<T, kVector><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(in);
  return cudaPeekAtLastError();
}

template <typename T>
int SwiGluOf(const SwiGluArgs& args, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  if (args.n > UINT32_MAX || args.out_stride > UINT32_MAX) return cudaErrorInvalidValue;
  const bool aligned = IsAligned(args.gate_up, 16) && IsAligned(args.out, 16) &&
                       args.n % kVector == 0 && args.out_stride % kVector == 0;
  return aligned ? LaunchSwiGlu<T, kVector>(args, stream) : LaunchSwiGlu<T, 1>(args, stream);
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) GeluKernel(T* x, int64_t vectors) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= vectors) return;
  float value[kVector];
  LoadPack(x + index * kVector, value);
#pragma unroll
  for (int i = 0; i < kVector; ++i) value[i] = GeluOf(value[i]);
  StorePack(value, x + index * kVector);
}

template <typename T>
int GeluOf(const GeluArgs& args, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  T* x = static_cast<T*>(args.x);
  const bool aligned = IsAligned(x, 16) && args.count % kVector == 0;
  const int64_t vectors = aligned ? args.count / kVector : args.count;
  const int64_t blocks = (vectors + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  if (aligned) {
    GeluKernel<T, kVector><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, vectors);
  } else {
    GeluKernel<T, 1><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, vectors);
  }
  return cudaPeekAtLastError();
}

}  // namespace

int internal::SwiGluCuda(const SwiGluArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  return args.dtype == DType::kFloat32 ? SwiGluOf<float>(args, stream)
                                       : SwiGluOf<__nv_bfloat16>(args, stream);
}

int internal::GeluCuda(const GeluArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  return args.dtype == DType::kFloat32 ? GeluOf<float>(args, stream)
                                       : GeluOf<__nv_bfloat16>(args, stream);
}

}  // namespace triptych::kernels
