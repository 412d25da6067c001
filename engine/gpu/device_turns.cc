#include "engine/gpu/device_turns.h"

#include "base/status.h"

namespace triptych::engine {

absl::StatusOr<std::unique_ptr<DeviceTurns>> DeviceTurns::Create() {
  ASSIGN_OR_RETURN(base::CudaEvent last, base::CudaEvent::Create(base::CudaTiming::kOff));
  return std::unique_ptr<DeviceTurns>(new DeviceTurns(std::move(last)));
}

absl::Status DeviceTurns::Take(base::CudaStream* stream,
                               absl::FunctionRef<absl::Status()> enqueue) {
  const std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(stream->Wait(last_));
  RETURN_IF_ERROR(enqueue());
  return last_.Record(stream->get());
}

}  // namespace triptych::engine
