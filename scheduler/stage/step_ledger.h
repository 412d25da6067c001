#pragma once

// What the device has been given and not finished: steps of each lane, imports, exports. And what
// must not be given back before they are over: whoever could still read or write a block or a slot
// was given to the device before it was retired, so it is free once all of those are done.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "scheduler/cache/block_pool.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/transfer/transfer_actions.h"

namespace triptych::scheduler {

// What of a submitted plan is needed to read its result.
struct StepRecord {
  struct Row {
    TaskId task;
    uint64_t life = 0;  // of the task when this was planned
    int32_t tokens = 0;
    Stage stage = Stage::kPrefill;
    int32_t context = 0;  // tokens before the row's
  };
  struct Encode {
    TaskId task;
    uint64_t life = 0;
    int64_t patches = 0;
  };
  StepId id;
  Lane lane = Lane::kLanguage;
  std::vector<Row> rows;
  std::vector<Encode> encodes;
};

// A piece that landed, for the consumer task as it was then.
struct LandedPiece {
  PieceLanded piece;
  uint64_t life = 0;
  std::optional<TransferReceived> completes;  // it was the last of its input
};

struct ExportRecord {
  TransferKey key;
  int32_t index = 0;
  PieceBuffer buffer;
  CacheRange range;
};

class StepLedger {
 public:
  int in_flight(Lane lane) const { return static_cast<int>(of(lane).steps.size()); }
  int imports() const { return static_cast<int>(imports_.size()); }
  int exports() const { return static_cast<int>(exports_.size()); }
  int in_flight() const {
    return in_flight(Lane::kLanguage) + in_flight(Lane::kEncode) + imports() + exports();
  }
  // Steps are counted by lane, from 1.
  StepId next_id(Lane lane) const { return StepId(of(lane).last + 1); }

  void Submitted(StepRecord record);
  void ImportSubmitted(LandedPiece piece);
  void ExportSubmitted(ExportRecord record);

  // Takes what is over, and gives back what was retired on it. A step must be the oldest of its
  // lane (CHECKed).
  StepRecord Finished(Lane lane, StepId id);
  LandedPiece ImportFinished(BufferId buffer);
  ExportRecord ExportFinished(BufferId buffer);

  // Holds the blocks, or the pages of slots, until everything that was submitted is over and may
  // have used them. An encode never touches a block.
  void Retire(BlockHandle blocks);
  void RetireSlots(BlockHandle pages);

  // Blocks that come free as work finishes.
  int32_t retired_blocks() const;

 private:
  // Tickets number everything that is submitted, in order.
  struct Steps {
    std::deque<std::pair<uint64_t, StepRecord>> steps;
    uint64_t last = 0;
  };
  struct Retired {
    uint64_t ticket = 0;  // the last that was given out before
    BlockHandle pages;
  };

  Steps& of(Lane lane) { return lanes_[static_cast<int>(lane)]; }
  const Steps& of(Lane lane) const { return lanes_[static_cast<int>(lane)]; }
  uint64_t OldestUserOfBlocks() const;
  uint64_t OldestUserOfSlots() const;
  void GiveBack();

  Steps lanes_[kNumLanes];
  std::map<BufferId, std::pair<uint64_t, LandedPiece>> imports_;
  std::map<BufferId, std::pair<uint64_t, ExportRecord>> exports_;
  std::set<uint64_t> piece_tickets_;  // of imports and exports
  uint64_t last_ticket_ = 0;
  std::deque<Retired> blocks_, slots_;
};

}  // namespace triptych::scheduler
