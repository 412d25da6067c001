#pragma once

// The nonlinear functions of the feed-forward layers, element by element with our own e^x, so the
// bits are the same on every CPU. CPU only, float32. Stateless; safe from any thread.

#include <cstdint>

#include "kernels/stream.h"

namespace triptych::kernels {

// Row r: out[i] = silu(gate[i]) * up[i], where gate is columns [0, n) and up columns [n, 2n) of
// `gate_up` [rows, 2n]; `out` is [rows, n].
void SwiGlu(const float* gate_up, int64_t rows, int64_t n, float* out, const Stream& stream);

// The exact (erf) GELU of n values in place; error below 2e-7 of the input's magnitude.
void Gelu(float* x, int64_t n, const Stream& stream);

}  // namespace triptych::kernels
