#pragma once

// The four-lane loads and stores of float32 and bfloat16 that the CPU sides share. Four lanes
// because every x86-64 has them: the same instructions, so the same bits, on every machine.

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/bfloat16.h"

namespace triptych::kernels {

using base::BFloat16;
using base::ToFloat;

inline float ToFloat(float value) { return value; }

inline void StoreFloat(float value, float* to) { *to = value; }
inline void StoreFloat(float value, BFloat16* to) { *to = base::ToBFloat16(value); }

typedef float Float4 __attribute__((vector_size(16)));
typedef uint32_t UInt4 __attribute__((vector_size(16)));

inline Float4 Load4(const float* from) {
  Float4 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline Float4 Load4(const BFloat16* from) {
  const UInt4 bits = {from[0].bits, from[1].bits, from[2].bits, from[3].bits};
  return std::bit_cast<Float4>(bits << 16);
}

inline void Store4(Float4 value, float* to) { std::memcpy(to, &value, sizeof(value)); }
inline void Store4(Float4 value, BFloat16* to) {
  for (int lane = 0; lane < 4; ++lane) StoreFloat(value[lane], to + lane);
}

}  // namespace triptych::kernels
