#include <utility>

#include "scheduler/stage/admission.h"
#include "scheduler/stage/handover.h"
#include "scheduler/stage/inputs.h"

namespace triptych::scheduler {

void ItemIsHere(StageState& state, PrefillTask& task, int32_t item) {
  PrefillItem& place = task.items[item];
  if (place.landed) return;
  place.landed = true;
  state.Tell(ItemLanded{task.assign.task, {item, *place.producer}, place.num_tokens});
}

void TakeOver(StageState& state, PrefillTask& producer) {
  auto* kept = std::get_if<PrefillKept>(&producer.state);
  if (kept == nullptr || kept->taken_over || kept->finish != Finish::kNone) return;
  // The newest: an earlier one is of a scheduler that is no more, or is about to be released.
  for (auto it = state.decodes.rbegin(); it != state.decodes.rend(); ++it) {
    DecodeTask& task = it->second;
    auto* waiting = std::get_if<AwaitingKv>(&task.state);
    const bool mine = task.local && task.assign.producer == producer.assign.task;
    if (!mine || waiting == nullptr) continue;
    // The blocks change owner; whoever else waited for them is served by a new prefill.
    StopSending(state, producer.outgoing);
    waiting->blocks = std::move(kept->blocks);
    waiting->first = kept->first;
    kept->blocks = BlockTable();
    kept->taken_over = true;
    return StartDecode(state, task);
  }
}

}  // namespace triptych::scheduler
