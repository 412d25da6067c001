#pragma once

// The parts of a decode step in float64, by the plainest kernels: what the fast ones are held
// against. Device pointers; they synchronise; float64 results in device memory.

#include "bench/gpu/decode_model.h"

namespace triptych::bench {

// [rows, outputs of y].
std::vector<double> ReferenceLinear(const kernels::DecodeLinearArgs& args);

// [rows, heads, 128] of what `model` would attend to now, its pool as before the call.
std::vector<double> ReferenceAttention(const DecodeModel& model, int layer);
// [rows, kv_heads, 2, 128]: rotated key and value of each row's new token.
std::vector<double> ReferenceNewTokens(const DecodeModel& model);
// The same as they lie in the pool.
std::vector<double> StoredNewTokens(const DecodeModel& model, int layer);

// Norm of the difference over the norm of `right`; infinity where a value is not a number.
double RelativeError(const std::vector<double>& value, const std::vector<double>& right);
// Random bits at `to`, and a copy that a kernel of ours makes.
void FillRandom(void* to, int64_t bytes);
void CopyByKernel(void* to, const void* from, int64_t bytes);
std::vector<double> DownloadBf16(const void* from, int64_t count);
std::vector<double> DownloadFloats(const float* from, int64_t count);

}  // namespace triptych::bench
