#pragma once

// bfloat16 in host memory: the upper half of a float32. The one conversion; the vector variants of
// kernels/ have the same in their lanes' form.

#include <bit>
#include <cstdint>

namespace triptych::base {

struct BFloat16 {
  uint16_t bits = 0;
};

// Exact.
inline constexpr float ToFloat(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline constexpr BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return {static_cast<uint16_t>((is_nan ? bits | 0x400000u : rounded) >> 16)};
}

}  // namespace triptych::base
