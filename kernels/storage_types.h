#pragma once

// bfloat16 as stored on the CPU, and the four-lane conversions that the CPU sides share. Four
// lanes because every x86-64 has them: the same instructions, so the same bits, on every machine.

#include <bit>
#include <cstdint>
#include <cstring>

namespace triptych::kernels {

struct BFloat16 {
  uint16_t bits = 0;
};

inline float ToFloat(float value) { return value; }
inline float ToFloat(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline void StoreFloat(float value, float* to) { *to = value; }
inline void StoreFloat(float value, BFloat16* to) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  to->bits = static_cast<uint16_t>((is_nan ? bits | 0x400000u : rounded) >> 16);
}

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
