#include <algorithm>

#include "base/check.h"
#include "kernels/activation.h"
#include "kernels/cpu_math.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kValuesPerPiece = 8192;

}  // namespace

void SwiGlu(const float* gate_up, int64_t rows, int64_t n, float* out, const Stream& stream) {
  CHECK_TRUE(stream.device == Device::kCpu);
  const int64_t step = std::max<int64_t>(1, kValuesPerPiece / n);
  ParallelFor(stream.pool, (rows + step - 1) / step, [&](int64_t piece) {
    for (int64_t row = piece * step; row < std::min(rows, (piece + 1) * step); ++row) {
      const float* gate = gate_up + row * 2 * n;
      BestCpuMath().swiglu(gate, gate + n, n, out + row * n);
    }
  });
}

void Gelu(float* x, int64_t n, const Stream& stream) {
  CHECK_TRUE(stream.device == Device::kCpu);
  ParallelFor(stream.pool, (n + kValuesPerPiece - 1) / kValuesPerPiece, [&](int64_t piece) {
    const int64_t begin = piece * kValuesPerPiece;
    BestCpuMath().gelu(x + begin, std::min(kValuesPerPiece, n - begin), x + begin);
  });
}

}  // namespace triptych::kernels
