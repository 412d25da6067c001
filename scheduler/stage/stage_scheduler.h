#pragma once

// The scheduler of one worker: its tasks, KV blocks, embedding slots, batches, chunks and token
// streams, for any subset of the roles. It decides; it does no I/O, reads no clock and knows no
// engine. Owner thread only; none of its functions blocks.
//
// Every event may come late, twice or for something that is gone: it then changes nothing.

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/stage/stage_actions.h"

namespace triptych::scheduler {

struct StageState;

class StageScheduler {
 public:
  explicit StageScheduler(StageConfig config);
  ~StageScheduler();

  // A message of the scheduler that this worker obeys (term and incarnations were checked).
  void Handle(const SchedulerToWorker& message, base::TimePoint now);

  // Answer to Pull. UNAVAILABLE, ABORTED: the task is reported for another try. NOT_FOUND,
  // FAILED_PRECONDITION: dropped. Others end the request.
  void OnPulled(TaskId task, absl::StatusOr<PulledInput> input, base::TimePoint now);
  // Encode: the executor has the item's patches, and this is their grid; or why not (ends the
  // request unless UNAVAILABLE).
  void OnMediaReady(TaskId task, absl::StatusOr<Grid> grid, base::TimePoint now);

  void OnTransferMessage(Incarnation peer, const TransferMessage& message, base::TimePoint now);
  // Every PostSend and PostReceive is answered exactly once. `checksum` is that of the bytes.
  void OnPieceSent(Incarnation peer, uint64_t sequence, absl::Status status, base::TimePoint now);
  void OnPieceReceived(Incarnation peer, uint64_t sequence, absl::Status status, uint64_t checksum,
                       base::TimePoint now);
  // A worker or a gateway is gone for good.
  void OnPeerLost(Incarnation peer, base::TimePoint now);

  // Once each, in the order of submission: results within a lane, and imports. Exports are over in
  // any order, also before the result of the step that wrote them.
  void OnStepResult(StepResult result, base::TimePoint now);
  void OnImported(BufferId buffer, base::TimePoint now);
  void OnExported(const ExportResult& result, base::TimePoint now);

  void OnTokenReply(const TokenReply& reply, base::TimePoint now);
  // The stream to this gateway was rebuilt: what it has not acknowledged is sent again.
  void OnTokenStreamReset(Incarnation gateway, base::TimePoint now);

  void OnTime(base::TimePoint now);
  base::TimePoint NextDeadline() const;

  // Plans steps from everything that has happened since the last call, and returns what to do, in
  // order; empty when there is nothing. Call it after a burst of events, before waiting again.
  std::vector<StageAction> TakeActions();

  // Free numbers and loads, and every task if `with_inventory`. `handled_sequence` is left to the
  // caller.
  WorkerReport Report(bool with_inventory) const;
  StageStats Stats() const;
  bool draining() const;

  // CHECKs what must hold between events; looks at everything, so only tests call it.
  void CheckInvariants() const;

 private:
  friend class StageSchedulerTestAccess;
  std::unique_ptr<StageState> state_;
};

}  // namespace triptych::scheduler
