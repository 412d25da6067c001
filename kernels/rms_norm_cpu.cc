#include <algorithm>
#include <cmath>

#include "kernels/rms_norm.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

// 32 running sums: element i always lands in sum i % 32, and the sums are folded in halves.
constexpr int kVectors = 8;
constexpr int kSums = 4 * kVectors;
constexpr int64_t kRowsPerSlice = 16;

template <typename T>
float SumOfSquares(const T* row, int64_t hidden) {
  Float4 sums[kVectors] = {};
  int64_t i = 0;
  for (; i + kSums <= hidden; i += kSums) {
    for (int v = 0; v < kVectors; ++v) {
      const Float4 x = Load4(row + i + 4 * v);
      sums[v] += x * x;
    }
  }
  for (int lane = 0; i < hidden; ++i, ++lane) {
    const float x = ToFloat(row[i]);
    sums[lane / 4][lane % 4] += x * x;
  }
  for (int width = kVectors / 2; width > 0; width /= 2) {
    for (int v = 0; v < width; ++v) sums[v] += sums[v + width];
  }
  return (sums[0][0] + sums[0][2]) + (sums[0][1] + sums[0][3]);
}

template <typename T>
void AddTo(const T* x, T* residual, int64_t hidden) {
  int64_t i = 0;
  for (; i + 4 <= hidden; i += 4) Store4(Load4(residual + i) + Load4(x + i), residual + i);
  for (; i < hidden; ++i) StoreFloat(ToFloat(residual[i]) + ToFloat(x[i]), residual + i);
}

template <typename T>
void Scale(const T* row, float factor, const T* weight, T* out, int64_t hidden) {
  int64_t i = 0;
  for (; i + 4 <= hidden; i += 4) Store4(Load4(row + i) * factor * Load4(weight + i), out + i);
  for (; i < hidden; ++i) StoreFloat(ToFloat(row[i]) * factor * ToFloat(weight[i]), out + i);
}

template <typename T>
void Norm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* row = static_cast<const T*>(args.x) + r * args.x_stride;
    if (args.residual != nullptr) {
      T* residual = static_cast<T*>(args.residual) + r * args.residual_stride;
      AddTo(row, residual, args.hidden);
      row = residual;
    }
    const float mean = SumOfSquares(row, args.hidden) / static_cast<float>(args.hidden);
    Scale(row, 1.0f / std::sqrt(mean + args.eps), static_cast<const T*>(args.weight),
          static_cast<T*>(args.out) + r * args.out_stride, args.hidden);
  }
}

}  // namespace

void internal::RmsNormCpu(const RmsNormArgs& args, ThreadPool* pool) {
  const auto norm = args.dtype == DType::kFloat32 ? Norm<float> : Norm<BFloat16>;
  ParallelFor(pool, (args.rows + kRowsPerSlice - 1) / kRowsPerSlice, [&](int64_t slice) {
    norm(args, slice * kRowsPerSlice, std::min(args.rows, (slice + 1) * kRowsPerSlice));
  });
}

}  // namespace triptych::kernels
