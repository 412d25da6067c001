#pragma once

// Work that fills the device goes in turns. An encode and a prefill side by side take longer than
// one after the other, because both are bound by arithmetic and each evicts what the other had in
// the caches; a decode step is bound by memory and runs beside an encode.

#include <memory>
#include <mutex>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cuda.h"

namespace triptych::engine {

class DeviceTurns {
 public:
  // Of the calling thread's device.
  static absl::StatusOr<std::unique_ptr<DeviceTurns>> Create();

  // Calls `enqueue`, whose work on `stream` starts when that of every earlier turn is over: turns
  // are in the order of these calls. From any thread; holds a mutex while `enqueue` runs.
  absl::Status Take(base::CudaStream* stream, absl::FunctionRef<absl::Status()> enqueue);

 private:
  explicit DeviceTurns(base::CudaEvent last) : last_(std::move(last)) {}

  std::mutex mutex_;
  base::CudaEvent last_;  // the end of the latest turn
};

}  // namespace triptych::engine
