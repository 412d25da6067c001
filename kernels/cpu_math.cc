#include "kernels/cpu_math.h"

#include "kernels/cpu_math_variants.h"

namespace triptych::kernels {

int RunnableCpuMath(const CpuMath* variants[3]) {
  int count = 0;
  variants[count++] = &kPortableMath;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    variants[count++] = &kAvx2Math;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      variants[count++] = &kAvx512Math;
    }
  }
#endif
  return count;
}

const CpuMath& BestCpuMath() {
  static const CpuMath* const best = [] {
    const CpuMath* variants[3];
    return variants[RunnableCpuMath(variants) - 1];
  }();
  return *best;
}

}  // namespace triptych::kernels
