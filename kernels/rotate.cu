// A thread turns a vector of the first half of a head with its partner of the second.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/rotate.h"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 256;

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) RotateKernel(const __grid_constant__ RotateArgs args) {
  const uint32_t half = static_cast<uint32_t>(args.head_dim) / 2;
  const uint32_t vectors = half / kVector, token_vectors = vectors * args.heads;
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  const uint32_t token = index / token_vectors;
  if (token >= args.tokens) return;
  const uint32_t in_token = index - token * token_vectors, head = in_token / vectors;
  const uint32_t i = (in_token - head * vectors) * kVector;
  T* low = static_cast<T*>(args.x) + token * args.x_stride + head * args.head_dim + i;
  float a[kVector], b[kVector], cosine[kVector], sine[kVector];
  LoadPack(low, a);
  LoadPack(low + half, b);
  LoadPack(args.cosines + int64_t{token} * half + i, cosine);
  LoadPack(args.sines + int64_t{token} * half + i, sine);
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    const float turned = a[k] * cosine[k] - b[k] * sine[k];
    b[k] = b[k] * cosine[k] + a[k] * sine[k];
    a[k] = turned;
  }
  StorePack(a, low);
  StorePack(b, low + half);
}

template <typename T, int kVector>
int Launch(const RotateArgs& args, cudaStream_t stream) {
  const int64_t threads = args.tokens * args.heads * (args.head_dim / 2 / kVector);
  // Indices are 32 bits, the last block's too.
  if (threads > UINT32_MAX - kThreads) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  RotateKernel<T, kVector><<<blocks, kThreads, 0, stream>>>(args);
  return cudaPeekAtLastError();
}

template <typename T>
int LaunchAligned(const RotateArgs& args, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  const bool aligned = IsAligned(args.x, 16) && IsAligned(args.cosines, 32) &&
                       IsAligned(args.sines, 32) && args.head_dim / 2 % 8 == 0 &&
                       args.x_stride % kVector == 0;
  return aligned ? Launch<T, kVector>(args, stream) : Launch<T, 1>(args, stream);
}

}  // namespace

int internal::RotateCuda(const RotateArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  return args.dtype == DType::kFloat32 ? LaunchAligned<float>(args, stream)
                                       : LaunchAligned<__nv_bfloat16>(args, stream);
}

}  // namespace triptych::kernels
