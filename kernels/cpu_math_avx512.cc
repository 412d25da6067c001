// Sixteen lanes as one AVX-512 register. Compiled with the AVX-512 flags; nothing here has external
// linkage but the table, so no other file can pick up this file's instructions.

#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu_math_variants.h"

namespace triptych::kernels {
namespace {

struct Lanes {
  __m512 v;
};

inline Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Lanes Load(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline void Store(float* p, Lanes x) { _mm512_storeu_ps(p, x.v); }
inline Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes Add(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes Sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes Mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes Div(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes Max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes Min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes Round(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Lanes PowerOfTwo(Lanes n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvttps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline Lanes SelectLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

// By halves: lane i with lane i + 8, then + 4, + 2, + 1.
inline float HorizontalSum(Lanes x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float HorizontalMax(Lanes x) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Lane j of row i becomes lane i of row j.
inline void Transpose(Lanes (&rows)[kLanes]) {
  __m512 pairs[16], quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  // quads[4 i + c] holds, for each fourth L of the lanes, lane 4 L + c of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even_low = _mm512_shuffle_f32x4(quads[c], quads[c + 4], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(quads[c], quads[c + 4], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(quads[c + 8], quads[c + 12], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(quads[c + 8], quads[c + 12], 0xdd);
    rows[c].v = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[c + 4].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[c + 8].v = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    rows[c + 12].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

// Sixteen 32-bit words.
struct Words {
  __m512i v;
};

inline Words SetWord(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
inline Words LoadWords(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Words Xor(Words a, Words b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline Words And(Words a, Words b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Words AddWords(Words a, Words b) { return {_mm512_add_epi32(a.v, b.v)}; }
// Of the 64-bit products.
inline Words MultiplyHigh(Words a, Words b) {
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a.v, b.v), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
  return {_mm512_mask_blend_epi32(0xaaaa, even, odd)};
}
inline Words MultiplyLow(Words a, Words b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int kBits>
inline Words ShiftSigned(Words a) {
  return {_mm512_srai_epi32(a.v, kBits)};
}
inline Lanes FromSigned(Words a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Words BitsOf(Lanes a) { return {_mm512_castps_si512(a.v)}; }
inline Lanes FromBits(Words a) { return {_mm512_castsi512_ps(a.v)}; }
// a < 0 as a signed word ? x : y.
inline Lanes SelectNegative(Words a, Lanes x, Lanes y) {
  return {_mm512_mask_blend_ps(_mm512_movepi32_mask(a.v), y.v, x.v)};
}

// At most 24 accumulators of the 32 registers.
constexpr int kMaxTileRows = 12;
constexpr int PanelsAtOnce(int rows) {
  return rows == 1 ? 8 : rows == 2 ? 6 : rows <= 4 ? 4 : rows <= 8 ? 3 : 2;
}

}  // namespace
}  // namespace triptych::kernels

#define TRIPTYCH_MATH_VARIANT kAvx512Math
#define TRIPTYCH_MATH_NAME "avx512"
#include "kernels/cpu_math_body.h"
#endif
