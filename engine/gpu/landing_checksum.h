#pragma once

// The checksum of a piece that has landed: on the device where it lies there, else on the calling
// thread. Waits for the answer. One thread.

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "kernels/cuda_context.h"

namespace triptych::engine {

class LandingChecksum {
 public:
  // Errors as base/cuda.h.
  static absl::StatusOr<std::unique_ptr<LandingChecksum>> Create(int device);

  // base::Checksum64 of all of `piece`, whose bytes nobody writes meanwhile. Errors of the device.
  absl::StatusOr<uint64_t> Of(const base::MemoryRef& piece);

 private:
  explicit LandingChecksum(base::CudaStream stream) : stream_(std::move(stream)) {}

  base::CudaStream stream_;
  kernels::CudaContext context_;
  base::PinnedMemory told_;
  base::DeviceMemory sum_;
};

}  // namespace triptych::engine
