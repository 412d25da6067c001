#pragma once

// What a finished step changes: tokens out, items landed, pieces ready, slots and blocks back.

#include "scheduler/plan/step_plan.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

void StepDone(StageState& state, const StepResult& result);

}  // namespace triptych::scheduler
