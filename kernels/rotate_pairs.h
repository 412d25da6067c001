#pragma once

// The one rotation of the CPU sides: separate products and sums, never fused, so the bits are the
// same whatever the compiler may contract elsewhere.

#include "kernels/storage_types.h"

namespace triptych::kernels {

// Turns pairs (i, i + head_dim / 2) of `heads` heads that follow each other by the angles whose
// cosines and sines [head_dim / 2] are given; `to` may be `from`.
template <typename From, typename To>
void RotatePairs(const From* from, const float* cosines, const float* sines, int heads,
                 int head_dim, To* to) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, from += head_dim, to += head_dim) {
    int i = 0;
    for (; i + 4 <= half; i += 4) {
      const Float4 a = Load4(from + i);
      const Float4 b = Load4(from + half + i);
      const Float4 cosine = Load4(cosines + i);
      const Float4 sine = Load4(sines + i);
      Store4(a * cosine - b * sine, to + i);
      Store4(b * cosine + a * sine, to + half + i);
    }
    for (; i < half; ++i) {
      const float a = ToFloat(from[i]);
      const float b = ToFloat(from[half + i]);
      StoreFloat(a * cosines[i] - b * sines[i], to + i);
      StoreFloat(b * cosines[i] + a * sines[i], to + half + i);
    }
  }
}

}  // namespace triptych::kernels
