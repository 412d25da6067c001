#pragma once

// What the parts of the stage scheduler work on. Private to this folder and to its tests. The parts
// are free functions, one concern a file:
//   admission    assignments in, reservations made, releases
//   inputs       answers to pulls, media, the start of running
//   batch        the next step's plan
//   results      what a finished step changes
//   token_flow   batches to gateways and their replies
//   handover     pieces to and from other workers, and in memory
//   inventory    reports

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "scheduler/cache/block_pool.h"
#include "scheduler/cache/block_table.h"
#include "scheduler/stage/stage_actions.h"
#include "scheduler/stage/step_cost.h"
#include "scheduler/stage/step_ledger.h"
#include "scheduler/stage/tasks.h"
#include "scheduler/transfer/receiver.h"
#include "scheduler/transfer/remembered.h"
#include "scheduler/transfer/sender.h"
#include "scheduler/transfer/transfer_actions.h"

namespace triptych::scheduler {

// A piece is never less than one block.
inline int64_t LargestPiece(const StageConfig& config) {
  return std::max({config.max_piece_bytes, config.embedding_bytes_per_token,
                   config.profile.kv_block_tokens * config.profile.kv_bytes_per_token});
}

struct StageState {
  explicit StageState(StageConfig stage_config)
      : config(std::move(stage_config)),
        blocks(config.profile.kv_blocks),
        slot_pages(config.profile.embedding_slots / config.profile.embedding_page_slots),
        sender(config.profile.fingerprint, {config.staging_bytes, config.buffer_alignment}),
        receiver(config.profile.fingerprint, {config.landing_bytes, config.buffer_alignment},
                 LargestPiece(config)) {}

  StageConfig config;
  BlockPool blocks;
  BlockPool slot_pages;
  TransferSender sender;
  TransferReceiver receiver;
  std::deque<LandedPiece> landed;  // checked in, not imported yet
  StepLedger steps;
  // By task id, which rises with time: the first is the oldest.
  std::map<TaskId, EncodeTask> encodes;
  std::map<TaskId, PrefillTask> prefills;
  std::map<TaskId, DecodeTask> decodes;
  bool draining = false;
  StepCost cost[kNumLanes];                 // learned, by lane
  Remembered<TaskId> over{kMaxRemembered};  // released, failed: an assignment comes too late
  uint64_t last_life = 0;
  uint32_t last_attempt = 0;
  base::TimePoint now{};  // of the event that is being handled
  std::vector<StageAction> actions;

  // Pages of slots for one item of `tokens` (positive); empty when too few are free.
  BlockHandle AllocateSlots(int32_t tokens) {
    return slot_pages.Allocate(BlocksFor(tokens, config.profile.embedding_page_slots));
  }
  int32_t free_slots() const { return slot_pages.num_free() * config.profile.embedding_page_slots; }
  Incarnation own() const { return config.profile.incarnation; }
  // Numbers rise over a worker's life: an offer that is made again is never taken for an earlier
  // one.
  uint32_t NewAttempt() { return ++last_attempt; }
  template <typename Action>
  void Emit(Action action) {
    actions.emplace_back(std::move(action));
  }
  template <typename Message>
  void Tell(Message message) {
    Emit(SendToScheduler{WorkerToScheduler(std::move(message))});
  }
};

// Looks a task up; null when it is gone.
template <typename Task>
Task* Find(std::map<TaskId, Task>& tasks, const TaskId& id) {
  auto it = tasks.find(id);
  return it == tasks.end() ? nullptr : &it->second;
}

}  // namespace triptych::scheduler
