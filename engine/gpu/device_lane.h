#pragma once

// One stream of a CUDA device with what ops need beside it: the matrix library's handle and scratch
// memory, and a workspace. One thread.

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "kernels/cuda_context.h"
#include "kernels/matrix_library.h"
#include "kernels/workspace.h"

namespace triptych::engine {

class DeviceLane {
 public:
  // Errors as base/cuda.h; UNAVAILABLE without the matrix library.
  static absl::StatusOr<std::unique_ptr<DeviceLane>> Create(int device, base::CudaPriority priority,
                                                            int64_t workspace_bytes);
  // How decode kernels are cut; borrowed.
  void UseChoices(kernels::GemmChoices* choices) { context_.choices = choices; }

  // What ops are given; valid as long as this.
  kernels::Stream stream() {
    return {.device = kernels::Device::kCuda, .cuda = &context_, .workspace = &*workspace_};
  }
  base::CudaStream& cuda() { return *cuda_; }
  kernels::Workspace& workspace() { return *workspace_; }

  // Makes the workspace at least that large: waits for the stream and allocates anew. Nothing of it
  // may be taken. RESOURCE_EXHAUSTED when the device has not so much.
  absl::Status Grow(int64_t workspace_bytes);

 private:
  DeviceLane() = default;

  std::optional<base::CudaStream> cuda_;
  std::unique_ptr<kernels::MatrixLibrary> library_;
  base::DeviceMemory library_scratch_, memory_;
  std::optional<kernels::Workspace> workspace_;
  kernels::CudaContext context_;
};

}  // namespace triptych::engine
