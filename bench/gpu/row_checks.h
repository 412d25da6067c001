#pragma once

// What a benchmark's ops computed, on single values, against double precision from the same bf16
// inputs. Errors are relative to the largest expected value of the check.

#include <cstdint>

#include "bench/gpu/bench_device.h"
#include "bench/gpu/gemm.h"

namespace triptych::bench {

// Values of the product at some rows and columns (no residual).
double GemmError(BenchDevice* device, const GemmArgs& args);
// out [rows, n] of SwiGLU over gate_up [rows, 2n].
double SwiGluError(BenchDevice* device, const void* gate_up, const void* out, int64_t rows,
                   int64_t n);

// Softmax attention of `query` over `keys` and `values`, all [head_dim] rows.
std::vector<double> Attend(const std::vector<double>& query,
                           const std::vector<std::vector<double>>& keys,
                           const std::vector<std::vector<double>>& values);

// The largest distance, relative to the largest of `expected`.
double RelativeError(const std::vector<double>& expected, const std::vector<double>& got);

}  // namespace triptych::bench
