#pragma once

// Loads and stores of up to 16 bytes at a time as float32, for float32 and bfloat16 storage.

#include <cuda_bf16.h>

#include <cstdint>

namespace triptych::kernels {

__device__ inline float Widen(float value) { return value; }
__device__ inline float Widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T Narrow(float value);
template <>
__device__ inline float Narrow<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 Narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// `kCount` elements of T, moved by one instruction when they are 16 bytes.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T value[kCount];
};

template <typename T, int kCount>
__device__ inline void LoadPack(const T* from, float (&to)[kCount]) {
  const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = Widen(pack.value[i]);
}

template <typename T, int kCount>
__device__ inline void StorePack(const float (&from)[kCount], T* to) {
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.value[i] = Narrow<T>(from[i]);
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

inline bool IsAligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace triptych::kernels
