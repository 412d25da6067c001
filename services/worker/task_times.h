#pragma once

// Takes the times of a worker's tasks, from the events that pass through its loop, for the timeline
// that a client sees. It measures; nothing is decided by it.

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "scheduler/stage/stage_actions.h"
#include "services/worker/worker_links.h"

namespace triptych::services {

// Loop thread only.
class TaskTimes {
 public:
  // A pull begins a task's record; at most kMaxTasks are kept.
  void OnPull(const scheduler::Pull& pull, base::TimePoint now);
  void OnMediaReady(scheduler::TaskId task, base::Duration decode);
  void OnSubmit(const scheduler::StepPlan& plan, base::TimePoint now);
  // A piece's time runs from its Ready to its check-in.
  void OnTransferMessage(const scheduler::TransferMessage& message, base::TimePoint now);
  struct Landed {
    scheduler::TransferKind kind;
    int64_t bytes = 0;
    base::Duration duration{0};
  };
  std::optional<Landed> OnAcknowledged(const scheduler::PieceAcknowledged& message,
                                       base::TimePoint now);
  // The task is over: also pieces that were announced to it and never checked in.
  void Forget(scheduler::TaskId task);

  // An encode task of this step has ended: whom to tell, and what.
  struct Finished {
    scheduler::PullRequest request;
    scheduler::PeerAddress gateway;
    StageTimes times;
  };
  std::optional<Finished> FinishEncode(scheduler::TaskId task, base::TimePoint now);
  // The times of a task's first batch of tokens; nullopt for its later ones.
  std::optional<StageTimes> TakeForTokens(scheduler::TaskId task, base::TimePoint now);

 private:
  static constexpr size_t kMaxTasks = 1 << 16;
  static constexpr size_t kMaxPieces = 1 << 12;  // of one consumer
  struct Record {
    scheduler::PullRequest request;
    scheduler::PeerAddress gateway;
    std::optional<base::TimePoint> first_submit;
    StageTimes times;
    bool told = false;
  };
  struct Piece {
    scheduler::Ready ready;
    base::TimePoint begin;
  };
  absl::flat_hash_map<scheduler::TaskId, Record> records_;
  // By consumer.
  absl::flat_hash_map<scheduler::TaskId,
                      absl::flat_hash_map<std::pair<scheduler::TransferKey, int32_t>, Piece>>
      pieces_;
};

}  // namespace triptych::services
