#include <algorithm>

#include "kernels/cpu_math.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels::internal {
namespace {

// A multiple of every tile height; with the panels of one piece it stays in the second-level cache.
constexpr int64_t kRowsPerPiece = 48;
constexpr int64_t kPanelsPerPiece = 24;

}  // namespace

void LinearCpu(const LinearWeights& weights, const LinearArgs& args, ThreadPool* pool) {
  const CpuMath& math = BestCpuMath();
  const int64_t panels = PaddedLanes(weights.outputs) / kLanes;
  const int64_t row_pieces = (args.rows + kRowsPerPiece - 1) / kRowsPerPiece;
  const int64_t panel_pieces = (panels + kPanelsPerPiece - 1) / kPanelsPerPiece;
  ParallelFor(pool, row_pieces * panel_pieces, [&](int64_t index) {
    const int64_t row = index % row_pieces * kRowsPerPiece;
    const int64_t panel = index / row_pieces * kPanelsPerPiece;
    const int64_t column = panel * kLanes;
    const int64_t at = row * args.y_stride + column;
    math.gemm({.a = args.x + row * args.x_stride,
               .a_stride = args.x_stride,
               .panels = weights.panels.data() + column * weights.inputs * SizeOf(weights.type),
               .panel_type = weights.type,
               .k = weights.inputs,
               .rows = std::min(kRowsPerPiece, args.rows - row),
               .columns = std::min(kPanelsPerPiece * kLanes, weights.outputs - column),
               .c = args.y + at,
               .c_stride = args.y_stride,
               .bias = weights.bias.empty() ? nullptr : weights.bias.data() + column,
               .residual = args.residual == nullptr ? nullptr : args.residual + at});
  });
}

}  // namespace triptych::kernels::internal
