#pragma once

// Inputs arrive: a task goes from waiting to running.

#include "absl/status/statusor.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

void InputPulled(StageState& state, const TaskId& task, absl::StatusOr<PulledInput> input);
void MediaReady(StageState& state, const TaskId& task, absl::StatusOr<Grid> grid);

// Starts the decode task if it has both its parameters and its KV.
void StartDecode(StageState& state, DecodeTask& task);

}  // namespace triptych::scheduler
