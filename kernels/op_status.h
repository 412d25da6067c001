#pragma once

// What every x.cc of an op shares: the types that ops run on, and the words for what a CUDA side
// answered.

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/dtype.h"

namespace triptych::kernels {

// Activations are float32 or bfloat16; nothing else is computed with.
inline bool IsActivation(base::DType type) {
  return type == base::DType::kFloat32 || type == base::DType::kBFloat16;
}

// `error` is the cudaError_t of the launch, 0 when it went well. CUDA reports what an earlier
// operation did at the next call, so the name of the op is a hint and not a verdict. A CUDA side
// answers cudaErrorNotSupported for types and sizes that it has no kernel for.
inline absl::Status CudaStatus(const char* op, int error) {
  constexpr int kNotSupported = 801;
  if (error == 0) return absl::OkStatus();
  if (error == kNotSupported) {
    return absl::UnimplementedError(
        absl::StrCat(op, ": no kernel of the CUDA side for these types or sizes"));
  }
  return absl::InternalError(
      absl::StrCat(op, ": CUDA error ", error, ", of this or an earlier operation"));
}

inline absl::Status NoCudaSide(const char* op) {
  return absl::UnimplementedError(absl::StrCat(op, ": this build has no CUDA side of it"));
}

}  // namespace triptych::kernels
