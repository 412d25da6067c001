#pragma once

// The steps in flight and what must not be given back before they are over. Steps finish in the
// order of submission, so whatever is retired now is safe once the youngest step has finished.

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "base/check.h"
#include "scheduler/cache/block_pool.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"

namespace triptych::scheduler {

// What of a submitted plan is needed to read its result.
struct StepRecord {
  struct Row {
    TaskId task;
    uint64_t life = 0;  // of the task when this was planned
    int32_t tokens = 0;
  };
  struct Encode {
    TaskId task;
    uint64_t life = 0;
    int64_t patches = 0;
  };
  struct Export {
    TransferKey key;
    int32_t index = 0;
    PieceBuffer buffer;
    CacheRange range;
  };
  StepId id;
  std::vector<Row> rows;
  std::vector<Encode> encodes;
  std::vector<BufferId> imports;
  std::vector<Export> exports;
};

class StepLedger {
 public:
  int in_flight() const { return static_cast<int>(steps_.size()); }
  StepId next_id() const { return StepId(last_ + 1); }

  void Submitted(StepRecord record) {
    CHECK_TRUE(record.id == next_id());
    ++last_;
    steps_.push_back({std::move(record), {}, {}});
  }

  // Removes the oldest step and gives back what was retired on it. `id` must be its id.
  StepRecord Finished(StepId id) {
    CHECK_TRUE(!steps_.empty() && steps_.front().record.id == id);
    StepRecord record = std::move(steps_.front().record);
    steps_.pop_front();
    return record;
  }

  // Holds the blocks, or the pages of slots, until every step in flight is over.
  void Retire(BlockHandle blocks) {
    if (!steps_.empty() && blocks.size() > 0) steps_.back().blocks.push_back(std::move(blocks));
  }
  void RetireSlots(BlockHandle pages) {
    if (!steps_.empty() && !pages.empty()) steps_.back().slots.push_back(std::move(pages));
  }

  // Blocks that come free as steps finish.
  int32_t retired_blocks() const {
    int32_t count = 0;
    for (const Entry& step : steps_) {
      for (const BlockHandle& blocks : step.blocks) count += blocks.size();
    }
    return count;
  }

 private:
  struct Entry {
    StepRecord record;
    std::vector<BlockHandle> blocks;
    std::vector<BlockHandle> slots;
  };
  std::deque<Entry> steps_;
  uint64_t last_ = 0;
};

}  // namespace triptych::scheduler
