#pragma once

// The checksum of a transfer piece: 64-bit, order-sensitive, four independent lanes of
// multiply-and-rotate in the manner of xxHash64, so that it keeps up with memory. It guards against
// faults, not against an attacker.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace triptych::base {

inline uint64_t MixBits(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

// `bytes` may be null when `size` is 0.
inline uint64_t Checksum64(const void* bytes, size_t size, uint64_t seed = 0) {
  constexpr uint64_t kA = 0x9e3779b185ebca87ULL, kB = 0xc2b2ae3d27d4eb4fULL;
  const auto* p = static_cast<const unsigned char*>(bytes);
  uint64_t lanes[4] = {seed + kA, seed ^ kB, seed * kA + 1, seed - kB};
  size_t left = size;
  for (; left >= 32; left -= 32, p += 32) {
    uint64_t words[4];
    std::memcpy(words, p, 32);
    for (int i = 0; i < 4; ++i) lanes[i] = std::rotl(lanes[i] + words[i] * kB, 31) * kA;
  }
  unsigned char tail[32] = {};
  if (left > 0) std::memcpy(tail, p, left);
  uint64_t words[4];
  std::memcpy(words, tail, 32);
  uint64_t hash = size * kA;
  for (int i = 0; i < 4; ++i) hash = MixBits(hash ^ std::rotl(lanes[i] + words[i] * kB, 31) * kA);
  return hash;
}

}  // namespace triptych::base
