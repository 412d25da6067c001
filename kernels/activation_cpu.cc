#include <algorithm>

#include "kernels/activation.h"
#include "kernels/cpu_math.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kValuesPerSlice = 8192;
// bfloat16 goes through float32 in pieces of this many values, on the stack.
constexpr int64_t kWidened = 256;

void SwiGluRow(const float* gate, const float* up, int64_t n, float* out) {
  BestCpuMath().swiglu(gate, up, n, out);
}

void Widen(const BFloat16* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = ToFloat(from[i]);
}
void Narrow(const float* from, int64_t n, BFloat16* to) {
  for (int64_t i = 0; i < n; ++i) StoreFloat(from[i], to + i);
}

void SwiGluRow(const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* out) {
  float wide_gate[kWidened], wide_up[kWidened];
  for (int64_t i = 0; i < n; i += kWidened) {
    const int64_t count = std::min(kWidened, n - i);
    Widen(gate + i, count, wide_gate);
    Widen(up + i, count, wide_up);
    BestCpuMath().swiglu(wide_gate, wide_up, count, wide_gate);
    Narrow(wide_gate, count, out + i);
  }
}

void GeluRow(float* x, int64_t n) { BestCpuMath().gelu(x, n, x); }
void GeluRow(BFloat16* x, int64_t n) {
  float wide[kWidened];
  for (int64_t i = 0; i < n; i += kWidened) {
    const int64_t count = std::min(kWidened, n - i);
    Widen(x + i, count, wide);
    BestCpuMath().gelu(wide, count, wide);
    Narrow(wide, count, x + i);
  }
}

template <typename T>
void SwiGluOf(const SwiGluArgs& args, ThreadPool* pool) {
  const int64_t step = std::max<int64_t>(1, kValuesPerSlice / args.n);
  ParallelFor(pool, (args.rows + step - 1) / step, [&](int64_t slice) {
    for (int64_t row = slice * step; row < std::min(args.rows, (slice + 1) * step); ++row) {
      const T* gate = static_cast<const T*>(args.gate_up) + row * 2 * args.n;
      SwiGluRow(gate, gate + args.n, args.n, static_cast<T*>(args.out) + row * args.out_stride);
    }
  });
}

template <typename T>
void GeluOf(const GeluArgs& args, ThreadPool* pool) {
  ParallelFor(pool, (args.count + kValuesPerSlice - 1) / kValuesPerSlice, [&](int64_t slice) {
    const int64_t begin = slice * kValuesPerSlice;
    GeluRow(static_cast<T*>(args.x) + begin, std::min(kValuesPerSlice, args.count - begin));
  });
}

}  // namespace

void internal::SwiGluCpu(const SwiGluArgs& args, ThreadPool* pool) {
  const auto run = args.dtype == DType::kFloat32 ? SwiGluOf<float> : SwiGluOf<BFloat16>;
  run(args, pool);
}

void internal::GeluCpu(const GeluArgs& args, ThreadPool* pool) {
  const auto run = args.dtype == DType::kFloat32 ? GeluOf<float> : GeluOf<BFloat16>;
  run(args, pool);
}

}  // namespace triptych::kernels
