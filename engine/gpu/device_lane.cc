#include "engine/gpu/device_lane.h"

#include <utility>

#include "base/status.h"

namespace triptych::engine {
namespace {

// What the library asks for on Hopper.
constexpr int64_t kLibraryScratchBytes = int64_t{64} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceLane>> DeviceLane::Create(int device,
                                                               base::CudaPriority priority,
                                                               int64_t workspace_bytes) {
  std::unique_ptr<DeviceLane> lane(new DeviceLane());
  ASSIGN_OR_RETURN(const base::CudaDeviceInfo info, base::DescribeCudaDevice(device));
  ASSIGN_OR_RETURN(base::CudaStream cuda, base::CudaStream::Create(priority));
  lane->cuda_ = std::move(cuda);
  ASSIGN_OR_RETURN(lane->library_scratch_,
                   base::DeviceMemory::Allocate(device, kLibraryScratchBytes));
  ASSIGN_OR_RETURN(lane->memory_, base::DeviceMemory::Allocate(device, workspace_bytes));
  lane->workspace_.emplace(lane->memory_.ref());
  ASSIGN_OR_RETURN(lane->library_, kernels::MatrixLibrary::Open());
  lane->context_ = {.stream = lane->cuda_->get(),
                    .cublaslt = lane->library_.get(),
                    .scratch = lane->library_scratch_.ref().data,
                    .scratch_bytes = kLibraryScratchBytes,
                    .device = device,
                    .sm_count = info.sm_count,
                    .pdl = true};
  return lane;
}

absl::Status DeviceLane::Grow(int64_t workspace_bytes) {
  if (workspace_->region().bytes >= workspace_bytes) return absl::OkStatus();
  RETURN_IF_ERROR(cuda_->Synchronize());
  memory_ = base::DeviceMemory();
  ASSIGN_OR_RETURN(memory_, base::DeviceMemory::Allocate(context_.device, workspace_bytes));
  workspace_.emplace(memory_.ref());
  return absl::OkStatus();
}

}  // namespace triptych::engine
