#pragma once

// The checksum of a transfer piece: 64 bits over the bytes and their order, defined as a sum over
// blocks of 4 KiB, so that whoever holds some of the blocks can compute its part, in any order and
// on any device, and parts are added. It guards against faults, not against an attacker.
//
// A block's hash: eight 64-bit lanes read it 64 bytes at a time; each lane adds its neighbour's
// word and the product of the halves of its own, keyed by lane and position (the accumulation of
// Collet's XXH3 in manner). A last, shorter block is filled up with zeros; the size is mixed in at
// the end.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace triptych::base {

inline constexpr size_t kChecksumBlock = 4096;

inline constexpr uint64_t MixBits(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

namespace internal {

inline constexpr int kChecksumLanes = 8;
inline constexpr uint64_t kChecksumLane = 0x9e3779b185ebca87ULL;
inline constexpr uint64_t kChecksumStripe = 0xc2b2ae3d27d4eb4fULL;
inline constexpr uint64_t kChecksumPlace = 0x165667b19e3779f9ULL;

// What lane `lane` is keyed with at the first stripe; each stripe adds kChecksumStripe.
inline constexpr uint64_t ChecksumKey(int lane, uint64_t seed) {
  return MixBits(seed + kChecksumLane * static_cast<uint64_t>(lane + 1));
}

// Lanes [kChecksumLanes] of one whole block of kChecksumBlock bytes.
inline void AccumulateBlock(const unsigned char* p, uint64_t seed, uint64_t* lanes) {
  uint64_t keys[kChecksumLanes];
  for (int i = 0; i < kChecksumLanes; ++i) keys[i] = ChecksumKey(i, seed);
#ifdef __SSE2__
  __m128i acc[4], key[4];
  for (int i = 0; i < 4; ++i) {
    acc[i] = _mm_setzero_si128();
    std::memcpy(&key[i], keys + 2 * i, 16);
  }
  const __m128i step = _mm_set1_epi64x(static_cast<int64_t>(kChecksumStripe));
  for (size_t at = 0; at < kChecksumBlock; at += 64) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m128i in = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + at + 16 * i));
      const __m128i x = _mm_xor_si128(in, key[i]);
      const __m128i product = _mm_mul_epu32(x, _mm_srli_epi64(x, 32));
      const __m128i neighbours = _mm_shuffle_epi32(in, _MM_SHUFFLE(1, 0, 3, 2));
      acc[i] = _mm_add_epi64(acc[i], _mm_add_epi64(product, neighbours));
      key[i] = _mm_add_epi64(key[i], step);
    }
  }
  for (int i = 0; i < 4; ++i) std::memcpy(lanes + 2 * i, &acc[i], 16);
#else
  std::fill_n(lanes, kChecksumLanes, uint64_t{0});
  for (size_t at = 0; at < kChecksumBlock; at += 64) {
    uint64_t in[kChecksumLanes];
    std::memcpy(in, p + at, 64);
    for (int i = 0; i < kChecksumLanes; ++i) {
      const uint64_t x = in[i] ^ keys[i];
      lanes[i] += in[i ^ 1] + (x & 0xffffffff) * (x >> 32);
      keys[i] += kChecksumStripe;
    }
  }
#endif
}

// What block `index` of the whole adds to the sum, from its lanes.
inline constexpr uint64_t BlockTerm(const uint64_t* lanes, uint64_t index) {
  uint64_t hash = 0;
  for (int i = 0; i < kChecksumLanes; ++i) {
    hash += MixBits(lanes[i] ^ (kChecksumLane * static_cast<uint64_t>(i + 1)));
  }
  return MixBits(hash + kChecksumPlace * (index + 1));
}

}  // namespace internal

// The part of the sum that `size` bytes add which begin with block `first_block` of the whole. Only
// the last block of the whole may be shorter than kChecksumBlock. `bytes` may be null when `size`
// is 0. Parts of one whole have one seed and are added modulo 2^64.
inline uint64_t ChecksumBlocks(const void* bytes, size_t size, uint64_t first_block,
                               uint64_t seed = 0) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  uint64_t sum = 0;
  for (uint64_t block = first_block; size > 0; ++block) {
    const size_t taken = std::min(size, kChecksumBlock);
    uint64_t lanes[internal::kChecksumLanes];
    if (taken == kChecksumBlock) {
      internal::AccumulateBlock(p, seed, lanes);
    } else {
      unsigned char filled[kChecksumBlock] = {};
      std::memcpy(filled, p, taken);
      internal::AccumulateBlock(filled, seed, lanes);
    }
    sum += internal::BlockTerm(lanes, block);
    p += taken;
    size -= taken;
  }
  return sum;
}

// The checksum of `size` bytes whose parts add up to `sum`.
inline constexpr uint64_t FinishChecksum(uint64_t sum, uint64_t size) {
  return MixBits(sum ^ MixBits(size + internal::kChecksumPlace));
}

// `bytes` may be null when `size` is 0. Another seed gives an independent hash.
inline uint64_t Checksum64(const void* bytes, size_t size, uint64_t seed = 0) {
  return FinishChecksum(ChecksumBlocks(bytes, size, 0, seed), size);
}

}  // namespace triptych::base
