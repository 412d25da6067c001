#pragma once

// The two sources of random bits. RandomBits64 asks the kernel: incarnations of processes, names
// and keys that nobody may guess. SeededRandom is for tests, simulation and load generators: the
// same seed gives the same numbers on every machine (the standard library's distributions do not
// promise that).

#include <sys/random.h>

#include <bit>
#include <cstdint>

#include "base/check.h"

namespace triptych::base {

// Unpredictable bits from getrandom(2), never 0, so that 0 can mean "none yet". Services only.
inline uint64_t RandomBits64() {
  uint64_t bits = 0;
  while (bits == 0) {
    CHECK_EQ(getrandom(&bits, sizeof(bits), 0), static_cast<ssize_t>(sizeof(bits)));
  }
  return bits;
}

// xoshiro256** by Blackman and Vigna, its state filled by SplitMix64 as its authors advise. Not for
// secrets. One thread.
class SeededRandom {
 public:
  explicit SeededRandom(uint64_t seed) {
    for (uint64_t& word : state_) word = SplitMix64(&seed);
  }

  uint64_t Next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound); `bound` > 0. Multiply and shift: the bias is below bound / 2^64.
  uint64_t Below(uint64_t bound) {
    CHECK_GT(bound, 0u);
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }

  // Uniform in [low, high], both included; `low` <= `high`.
  int64_t Between(int64_t low, int64_t high) {
    CHECK_LE(low, high);
    const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
    const uint64_t offset = span == 0 ? Next() : Below(span);
    return static_cast<int64_t>(static_cast<uint64_t>(low) + offset);
  }

  // Uniform in [0, 1), 53 bits.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

  // True with this probability.
  bool Chance(double probability) { return Uniform() < probability; }

 private:
  static uint64_t SplitMix64(uint64_t* state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  uint64_t state_[4];
};

}  // namespace triptych::base
