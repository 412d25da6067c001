// What must hold of one worker between any two events. Tests call it; production does not: it looks
// at everything.

#include "base/check.h"
#include "scheduler/stage/stage_scheduler.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {
namespace {

// Blocks that a task's state holds.
template <typename Task>
int32_t BlocksOf(const Task& task) {
  return std::visit(
      [](const auto& s) {
        if constexpr (requires { s.blocks; }) {
          return s.blocks.num_blocks();
        } else {
          return 0;
        }
      },
      task.state);
}

}  // namespace

void StageScheduler::CheckInvariants() const {
  const StageState& state = *state_;
  state.sender.CheckInvariants();
  state.receiver.CheckInvariants();
  // Every block is free, a task's, or of a task that is over and waits for the device.
  int32_t held = state.steps.retired_blocks();
  for (const auto& [id, task] : state.prefills) {
    CHECK_TRUE(task.assign.task == id);
    held += BlocksOf(task);
    const auto* kept = std::get_if<PrefillKept>(&task.state);
    CHECK_TRUE(kept == nullptr || !kept->taken_over || kept->blocks.num_blocks() == 0);
    // What goes out goes to the consumer that is bound.
    CHECK_TRUE(!task.outgoing || task.outgoing->key.consumer == task.consumer->consumer);
  }
  for (const auto& [id, task] : state.decodes) {
    CHECK_TRUE(task.assign.task == id);
    held += BlocksOf(task);
  }
  CHECK_EQ(held, state.blocks.num_held());
  CHECK_LE(state.steps.in_flight(Lane::kLanguage), state.config.max_steps_in_flight);
  CHECK_LE(state.steps.in_flight(Lane::kEncode), state.config.max_steps_in_flight);
  CHECK_LE(state.steps.imports(), state.config.max_pieces_in_flight);
  CHECK_LE(state.steps.exports(), state.config.max_pieces_in_flight);
  CHECK_LE(static_cast<int32_t>(state.prefills.size() + state.decodes.size()),
           4 * state.config.profile.max_sequences);
}

}  // namespace triptych::scheduler
