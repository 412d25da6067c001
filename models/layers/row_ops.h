#pragma once

// Row-wise steps between matrix products, spread over the threads of a stream. CPU.

#include <cstdint>
#include <vector>

#include "kernels/linear.h"
#include "kernels/stream.h"
#include "models/layers/load_layers.h"

namespace triptych::models {

// out = RMS norm of x, both [rows, weight.size()].
void NormRows(const float* x, const std::vector<float>& weight, float eps, int64_t rows, float* out,
              const kernels::Stream& stream);

// As kernels::Linear, whose arguments this code guarantees: an error is a CHECK.
void Apply(const PackedLinear& weights, const kernels::LinearArgs& args,
           const kernels::Stream& stream);

}  // namespace triptych::models
