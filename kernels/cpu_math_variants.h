#pragma once

// The compiled variants of cpu_math_body.h. Include from cpu_math*.cc only.

#include "kernels/cpu_math.h"

namespace triptych::kernels {

extern const CpuMath kPortableMath;
#if defined(__x86_64__)
extern const CpuMath kAvx2Math;    // needs AVX2 and FMA
extern const CpuMath kAvx512Math;  // needs AVX-512 F, BW, DQ and VL
#endif

}  // namespace triptych::kernels
