#include "models/layers/row_ops.h"

#include "base/check.h"
#include "kernels/rms_norm.h"

namespace triptych::models {
void NormRows(const float* x, const std::vector<float>& weight, float eps, int64_t rows, float* out,
              const kernels::Stream& stream) {
  CHECK_OK(kernels::RmsNorm({.x = x,
                             .weight = weight.data(),
                             .out = out,
                             .rows = rows,
                             .hidden = static_cast<int64_t>(weight.size()),
                             .eps = eps},
                            stream));
}

void Apply(const PackedLinear& weights, const kernels::LinearArgs& args,
           const kernels::Stream& stream) {
  CHECK_OK(kernels::Linear(weights.weights(), args, stream));
}

}  // namespace triptych::models
