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
