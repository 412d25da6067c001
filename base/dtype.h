#pragma once

// The element types of device memory: activations, weights, KV. What a checkpoint file may hold
// besides them is models/weights' own business.

#include <cstdint>

namespace triptych::base {

enum class DType : uint8_t {
  kFloat32,
  kBFloat16,
  kE4M3,  // 8-bit float of 4 exponent and 3 mantissa bits; no infinity, one NaN
};

// Bytes of one element. A type that is added and not named here does not compile.
inline constexpr int64_t SizeOf(DType type) {
  switch (type) {
    case DType::kFloat32:
      return 4;
    case DType::kBFloat16:
      return 2;
    case DType::kE4M3:
      return 1;
  }
  __builtin_unreachable();
}

// "float32", "bfloat16", "e4m3".
inline constexpr const char* DTypeName(DType type) {
  switch (type) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kE4M3:
      return "e4m3";
  }
  __builtin_unreachable();
}

}  // namespace triptych::base
