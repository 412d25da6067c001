#pragma once

// The next steps: continuous batching. In the language lane decode rows first (oldest task first),
// then prefill chunks (oldest first) in what is left of the token budget; encodes have a lane and a
// budget of their own.

#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

// Plans and submits steps of both lanes until enough are in flight or nothing is to be done.
void PlanSteps(StageState& state);

}  // namespace triptych::scheduler
