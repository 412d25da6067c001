#include "engine/gpu/landing_checksum.h"

#include "base/checksum.h"
#include "base/status.h"
#include "kernels/checksum.h"

namespace triptych::engine {

absl::StatusOr<std::unique_ptr<LandingChecksum>> LandingChecksum::Create(int device) {
  ASSIGN_OR_RETURN(base::CudaStream stream, base::CudaStream::Create(base::CudaPriority::kHigh));
  std::unique_ptr<LandingChecksum> checksum(new LandingChecksum(std::move(stream)));
  checksum->context_ = {.stream = checksum->stream_.get(), .device = device};
  ASSIGN_OR_RETURN(checksum->told_, base::PinnedMemory::Allocate(sizeof(uint64_t)));
  ASSIGN_OR_RETURN(checksum->sum_, base::DeviceMemory::Allocate(device, sizeof(uint64_t)));
  return checksum;
}

absl::StatusOr<uint64_t> LandingChecksum::Of(const base::MemoryRef& piece) {
  if (piece.space == base::MemorySpace::kHost) {
    const absl::Span<uint8_t> bytes = piece.HostBytes();
    return base::Checksum64(bytes.data(), bytes.size());
  }
  RETURN_IF_ERROR(kernels::Checksum({.data = piece.data,
                                     .bytes = piece.bytes,
                                     .checksum = static_cast<uint64_t*>(sum_.ref().data)},
                                    {.device = kernels::Device::kCuda, .cuda = &context_}));
  RETURN_IF_ERROR(stream_.Copy(told_.ref(), sum_.ref()));
  RETURN_IF_ERROR(stream_.Synchronize());
  return *static_cast<const uint64_t*>(told_.ref().data);
}

}  // namespace triptych::engine
