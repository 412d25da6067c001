#pragma once

// What the worker tells of itself: free numbers, loads, tasks.

#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

WorkerReport MakeReport(const StageState& state, bool with_inventory);

}  // namespace triptych::scheduler
