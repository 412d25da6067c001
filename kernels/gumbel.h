#pragma once

// The random number of an id: Gumbel(seed, index, id), one definition for the host and CUDA. Every
// step is an integer operation or one correctly rounded float32 operation, fused only where fmaf
// says so, so both give the same bits.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3") keyed by the seed at
// counter (index, GumbelGroup(id), 0); word GumbelWord(id) of its output is u in [0, 2^32): one
// call gives four ids that lie 16 apart, so that neighbours in a vector or a warp are neighbours
// in memory. E = -log(1 - (u + 1/2) / 2^32) is exponential and G = -log E is Gumbel. Both
// logarithms are Cephes' logf (2 ulp); near u = 0, where the largest G come from, the rounding of
// 1 - v is put back, so that their spacing is that of u.

#include <bit>
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define TRIPTYCH_BOTH __host__ __device__
#else
#define TRIPTYCH_BOTH
#endif

namespace triptych::kernels {

TRIPTYCH_BOTH inline uint32_t GumbelGroup(int32_t id) {
  return static_cast<uint32_t>(id / 64 * 16 + id % 16);
}
TRIPTYCH_BOTH inline int GumbelWord(int32_t id) { return id / 16 % 4; }

struct PhiloxWords {
  uint32_t word[4];
};

TRIPTYCH_BOTH inline PhiloxWords Philox(uint64_t seed, uint64_t index, uint32_t group) {
  uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
  uint32_t c2 = group, c3 = 0;
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c0, b = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(a);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

// log x for a normal x > 0.
TRIPTYCH_BOTH inline float LogOf(float x) {
#ifdef __CUDA_ARCH__
  const uint32_t bits = __float_as_uint(x);
#else
  const uint32_t bits = std::bit_cast<uint32_t>(x);
#endif
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const uint32_t shifted = bits - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const uint32_t m_bits = (shifted & 0x007fffffu) + 0x3f3504f3u;
#ifdef __CUDA_ARCH__
  const float f = __fsub_rn(__uint_as_float(m_bits), 1.0f);
  const float z = __fmul_rn(f, f);
#else
  const float f = std::bit_cast<float>(m_bits) - 1.0f;
  const float z = f * f;
#endif
  float p = 7.0376836292e-2f;
  p = fmaf(p, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
#ifdef __CUDA_ARCH__
  float y = __fmul_rn(__fmul_rn(p, f), z);
#else
  float y = p * f * z;
#endif
  y = fmaf(e, -2.12194440e-4f, y);
  y = fmaf(z, -0.5f, y);
#ifdef __CUDA_ARCH__
  return fmaf(e, 0.693359375f, __fadd_rn(f, y));
#else
  return fmaf(e, 0.693359375f, f + y);
#endif
}

// The exponential of a word.
TRIPTYCH_BOTH inline float ExponentialOf(uint32_t word) {
  // v is the distance to the nearer end of (0, 1).
  const bool low = word < 0x80000000u;
  const uint32_t near = low ? word : ~word;
#ifdef __CUDA_ARCH__
  const float v =
      __fmul_rn(__fadd_rn(static_cast<float>(static_cast<int32_t>(near)), 0.5f), 0x1p-32f);
  const float y = __fsub_rn(1.0f, v);
  const float lost = __fdiv_rn(__fsub_rn(__fsub_rn(1.0f, y), v), y);
  return low ? 0.0f - __fadd_rn(LogOf(y), lost) : 0.0f - LogOf(v);
#else
  const float v = (static_cast<float>(static_cast<int32_t>(near)) + 0.5f) * 0x1p-32f;
  const float y = 1.0f - v;
  const float lost = (1.0f - y - v) / y;
  return low ? 0.0f - (LogOf(y) + lost) : 0.0f - LogOf(v);
#endif
}

TRIPTYCH_BOTH inline float GumbelOfWord(uint32_t word) { return 0.0f - LogOf(ExponentialOf(word)); }

// A device computes GumbelOfWord for all four words of a group; this is the definition.
TRIPTYCH_BOTH inline float Gumbel(uint64_t seed, uint64_t index, int32_t id) {
  return GumbelOfWord(Philox(seed, index, GumbelGroup(id)).word[GumbelWord(id)]);
}

}  // namespace triptych::kernels

#undef TRIPTYCH_BOTH
