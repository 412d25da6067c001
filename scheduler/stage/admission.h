#pragma once

// Assignments in, reservations made, everything given back. All or nothing: a task that does not
// fit is refused at once, never left waiting with half of what it needs.

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

void Admit(StageState& state, const AssignEncode& assign);
void Admit(StageState& state, const AssignPrefill& assign);
void Admit(StageState& state, const AssignDecode& assign);

// Forgets the task, whatever its state; what a step may still use is held until that is over.
// Unknown tasks are fine. By value, here and below: callers name the task by the id inside it.
void Release(StageState& state, TaskId task);

// The pages of an encode task's slots, once no step in flight uses them.
void RetireSlots(StageState& state, EncodeTask& task);

// The task cannot go on: says so and forgets it. `peer`: whom it could not reach, if that was why.
void Fail(StageState& state, TaskId task, absl::Status status, Incarnation peer = {});

// Its memory goes to a task of a higher rank: says so and forgets it.
void Preempt(StageState& state, TaskId task);

// Sequences that could be accepted. A decode task that waits to take over from a prefill task of
// this worker does not count beside it.
int32_t FreeSequences(const StageState& state);

}  // namespace triptych::scheduler
