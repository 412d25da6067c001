#pragma once

// Sine and cosine of a rotary angle. On every CPU the same bits; CUDA may fuse its float64 steps,
// so there the result is within one rounding to float32 of the CPU's. Cody-Waite reduction by
// multiples of pi/2 in two parts, then Taylor polynomials on [-pi/4, pi/4], all in float64: the
// polynomials' error is below 1e-12, so what remains is the rounding to float32. The first part of
// pi/2 has 33 bits, which keeps the reduction exact for angles below 2^20.

#include <cstdint>

#ifdef __CUDACC__
#define TRIPTYCH_BOTH __host__ __device__
#else
#define TRIPTYCH_BOTH
#endif

namespace triptych::kernels {

struct SineCosine {
  float sine;
  float cosine;
};

TRIPTYCH_BOTH inline SineCosine RopeSineCosine(float angle) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kHalfPiHigh = 0x1.921fb544p+0;
  constexpr double kHalfPiLow = 0x1.0b4611a626331p-34;
  constexpr double kRoundToInteger = 6755399441055744.0;  // 1.5 * 2^52: adding it drops fractions
  const double quarters = (angle * kTwoOverPi + kRoundToInteger) - kRoundToInteger;
  const double r = (angle - quarters * kHalfPiHigh) - quarters * kHalfPiLow;
  const double z = r * r;
  const double sine =
      r + r * z *
              (-1.0 / 6 +
               z * (1.0 / 120 +
                    z * (-1.0 / 5040 +
                         z * (1.0 / 362880 + z * (-1.0 / 39916800 + z * (1.0 / 6227020800.0))))));
  const double cosine =
      1.0 +
      z * (-0.5 +
           z * (1.0 / 24 + z * (-1.0 / 720 +
                                z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
  const int quadrant = static_cast<int>(static_cast<int64_t>(quarters) & 3);
  const double s = (quadrant & 1) != 0 ? cosine : sine;
  const double c = (quadrant & 1) != 0 ? sine : cosine;
  return {static_cast<float>((quadrant & 2) != 0 ? -s : s),
          static_cast<float>(quadrant == 1 || quadrant == 2 ? -c : c)};
}

}  // namespace triptych::kernels

#undef TRIPTYCH_BOTH
