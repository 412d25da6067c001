#pragma once

// The checksum of base/checksum.h as an op: a sum over blocks, so a device computes it in parallel
// and in any order. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// Pointers are borrowed and lie in the memory of the stream's device.
struct ChecksumArgs {
  const void* data = nullptr;  // may be null with 0 bytes
  int64_t bytes = 0;
  uint64_t* checksum = nullptr;  // becomes base::Checksum64(data, bytes)
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer or a negative size. Unimplemented: CUDA in a build without it. Internal: the launch
// failed.
absl::Status Checksum(const ChecksumArgs& args, const Stream& stream);

namespace internal {
// Checked arguments. The CUDA one answers a cudaError_t.
void ChecksumCpu(const ChecksumArgs& args, ThreadPool* pool);
int ChecksumCuda(const ChecksumArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
