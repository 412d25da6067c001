// Sixteen lanes in plain C++: the definition of what the vector variants compute.

#include <cmath>
#include <cstring>

#include "kernels/cpu_math_variants.h"

namespace triptych::kernels {
namespace {

struct Lanes {
  float v[kLanes];
};

template <typename Fn>
inline Lanes EachLane(Fn fn) {
  Lanes r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = fn(i);
  return r;
}

inline Lanes Load(const float* p) {
  return EachLane([&](int i) { return p[i]; });
}
inline Lanes Load(const uint16_t* p) {
  return EachLane([&](int i) {
    const uint32_t bits = uint32_t{p[i]} << 16;
    float f;
    std::memcpy(&f, &bits, sizeof(f));
    return f;
  });
}
inline void Store(float* p, Lanes x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline Lanes Set(float x) {
  return EachLane([&](int) { return x; });
}
inline Lanes Add(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes Sub(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] - b.v[i]; });
}
inline Lanes Mul(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] * b.v[i]; });
}
inline Lanes Div(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once.
inline Lanes Fma(Lanes a, Lanes b, Lanes c) {
  return EachLane([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); });
}
// As the x86 instruction: b where either is NaN.
inline Lanes Max(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes Min(Lanes a, Lanes b) {
  return EachLane([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes Round(Lanes a) {
  return EachLane([&](int i) { return std::nearbyintf(a.v[i]); });
}
// 2^n of integral lanes in [-126, 127].
inline Lanes PowerOfTwo(Lanes n) {
  return EachLane([&](int i) {
    // A NaN gives any value: who multiplies by it has a NaN already.
    const int32_t exponent = n.v[i] == n.v[i] ? static_cast<int32_t>(n.v[i]) : 0;
    const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
    float f;
    std::memcpy(&f, &bits, sizeof(f));
    return f;
  });
}
// a < b ? x : y.
inline Lanes SelectLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return EachLane([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}

// By halves: lane i with lane i + 8, then + 4, + 2, + 1.
inline float HorizontalSum(Lanes x) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) x.v[i] += x.v[i + step];
  }
  return x.v[0];
}
inline float HorizontalMax(Lanes x) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) x.v[i] = x.v[i] > x.v[i + step] ? x.v[i] : x.v[i + step];
  }
  return x.v[0];
}
// Lane j of row i becomes lane i of row j.
inline void Transpose(Lanes (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float value = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = value;
    }
  }
}

// Sixteen 32-bit words.
struct Words {
  uint32_t v[kLanes];
};

template <typename Fn>
inline Words EachWord(Fn fn) {
  Words r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = fn(i);
  return r;
}

inline Words SetWord(uint32_t x) {
  return EachWord([&](int) { return x; });
}
inline Words LoadWords(const uint32_t* p) {
  return EachWord([&](int i) { return p[i]; });
}
inline Words Xor(Words a, Words b) {
  return EachWord([&](int i) { return a.v[i] ^ b.v[i]; });
}
inline Words And(Words a, Words b) {
  return EachWord([&](int i) { return a.v[i] & b.v[i]; });
}
inline Words AddWords(Words a, Words b) {
  return EachWord([&](int i) { return a.v[i] + b.v[i]; });
}
// Of the 64-bit products.
inline Words MultiplyHigh(Words a, Words b) {
  return EachWord([&](int i) { return static_cast<uint32_t>(uint64_t{a.v[i]} * b.v[i] >> 32); });
}
inline Words MultiplyLow(Words a, Words b) {
  return EachWord([&](int i) { return a.v[i] * b.v[i]; });
}
template <int kBits>
inline Words ShiftSigned(Words a) {
  return EachWord(
      [&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(a.v[i]) >> kBits); });
}
inline Lanes FromSigned(Words a) {
  return EachLane([&](int i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
}
inline Words BitsOf(Lanes a) {
  Words r;
  std::memcpy(r.v, a.v, sizeof(r.v));
  return r;
}
inline Lanes FromBits(Words a) {
  Lanes r;
  std::memcpy(r.v, a.v, sizeof(r.v));
  return r;
}
// a < 0 as a signed word ? x : y.
inline Lanes SelectNegative(Words a, Lanes x, Lanes y) {
  return EachLane([&](int i) { return static_cast<int32_t>(a.v[i]) < 0 ? x.v[i] : y.v[i]; });
}

constexpr int kMaxTileRows = 4;
constexpr int PanelsAtOnce(int) { return 1; }

}  // namespace
}  // namespace triptych::kernels

#define TRIPTYCH_MATH_VARIANT kPortableMath
#define TRIPTYCH_MATH_NAME "portable"
#include "kernels/cpu_math_body.h"
