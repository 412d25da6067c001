#pragma once

// The next step: continuous batching. Decode rows first (oldest task first), then prefill chunks
// (oldest first) in what is left of the token budget; encodes have a budget of their own.

#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

// Plans and submits steps until enough are in flight or nothing is to be done.
void PlanSteps(StageState& state);

}  // namespace triptych::scheduler
