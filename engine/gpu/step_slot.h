#pragma once

// What one step in flight owns besides the device's own arrays: pinned blocks for what goes down
// and what comes back, and its attention plan. A slot is used again only when its step has been
// answered.

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "engine/step_batch.h"
#include "kernels/attention_plan.h"
#include "kernels/sample.h"

namespace triptych::engine {

struct StepSlot {
  base::PinnedMemory block;    // the step's arrays
  base::PinnedMemory results;  // [rows] SampleResult, then [rows] errors
  kernels::AttentionPlan attention;
  std::optional<base::CudaEvent> begin, end;  // with timing

  kernels::SampleResult* drawn() const {
    return static_cast<kernels::SampleResult*>(results.ref().data);
  }
};

}  // namespace triptych::engine
