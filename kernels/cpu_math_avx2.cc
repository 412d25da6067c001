// Sixteen lanes as two AVX2 registers. Compiled with -mavx2 -mfma; nothing here has external
// linkage but the table, so no other file can pick up this file's instructions.

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu_math_variants.h"

namespace triptych::kernels {
namespace {

struct Lanes {
  __m256 low, high;
};

inline Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256 Widen(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Lanes Load(const uint16_t* p) { return {Widen(p), Widen(p + 8)}; }
inline void Store(float* p, Lanes x) {
  _mm256_storeu_ps(p, x.low);
  _mm256_storeu_ps(p + 8, x.high);
}
inline Lanes Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes Add(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Lanes Sub(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Lanes Mul(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Lanes Div(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Lanes Fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes Max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline Lanes Min(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
inline Lanes Round(Lanes a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kNearest), _mm256_round_ps(a.high, kNearest)};
}
inline __m256 PowerOfTwo(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Lanes PowerOfTwo(Lanes n) { return {PowerOfTwo(n.low), PowerOfTwo(n.high)}; }
inline Lanes SelectLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

// By halves: lane i with lane i + 8, then + 4, + 2, + 1.
inline float HorizontalSum(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float HorizontalMax(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline void Transpose8(__m256 (&r)[8]) {
  __m256 pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}
// Lane j of row i becomes lane i of row j.
inline void Transpose(Lanes (&rows)[kLanes]) {
  __m256 blocks[4][8];
  for (int i = 0; i < 8; ++i) {
    blocks[0][i] = rows[i].low;
    blocks[1][i] = rows[i].high;
    blocks[2][i] = rows[i + 8].low;
    blocks[3][i] = rows[i + 8].high;
  }
  for (auto& block : blocks) Transpose8(block);
  for (int i = 0; i < 8; ++i) {
    rows[i] = {blocks[0][i], blocks[2][i]};
    rows[i + 8] = {blocks[1][i], blocks[3][i]};
  }
}

// Sixteen 32-bit words.
struct Words {
  __m256i low, high;
};

inline Words SetWord(uint32_t x) {
  const __m256i all = _mm256_set1_epi32(static_cast<int>(x));
  return {all, all};
}
inline Words LoadWords(const uint32_t* p) {
  const auto* at = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
inline Words Xor(Words a, Words b) {
  return {_mm256_xor_si256(a.low, b.low), _mm256_xor_si256(a.high, b.high)};
}
inline Words And(Words a, Words b) {
  return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
inline Words AddWords(Words a, Words b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline __m256i MultiplyHigh(__m256i a, __m256i b) {
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  return _mm256_blend_epi32(even, odd, 0xaa);
}
// Of the 64-bit products.
inline Words MultiplyHigh(Words a, Words b) {
  return {MultiplyHigh(a.low, b.low), MultiplyHigh(a.high, b.high)};
}
inline Words MultiplyLow(Words a, Words b) {
  return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
}
template <int kBits>
inline Words ShiftSigned(Words a) {
  return {_mm256_srai_epi32(a.low, kBits), _mm256_srai_epi32(a.high, kBits)};
}
inline Lanes FromSigned(Words a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline Words BitsOf(Lanes a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
inline Lanes FromBits(Words a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
// a < 0 as a signed word ? x : y.
inline Lanes SelectNegative(Words a, Lanes x, Lanes y) {
  const Lanes sign = FromBits(a);
  return {_mm256_blendv_ps(y.low, x.low, sign.low), _mm256_blendv_ps(y.high, x.high, sign.high)};
}

// Twelve accumulators of the sixteen registers.
constexpr int kMaxTileRows = 6;
constexpr int PanelsAtOnce(int rows) { return rows == 1 ? 6 : rows == 2 ? 3 : rows == 3 ? 2 : 1; }

}  // namespace
}  // namespace triptych::kernels

#define TRIPTYCH_MATH_VARIANT kAvx2Math
#define TRIPTYCH_MATH_NAME "avx2"
#include "kernels/cpu_math_body.h"
#endif
