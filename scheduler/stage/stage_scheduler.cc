#include "scheduler/stage/stage_scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "scheduler/stage/admission.h"
#include "scheduler/stage/batch.h"
#include "scheduler/stage/handover.h"
#include "scheduler/stage/inputs.h"
#include "scheduler/stage/inventory.h"
#include "scheduler/stage/results.h"
#include "scheduler/stage/stage_state.h"
#include "scheduler/stage/token_flow.h"

namespace triptych::scheduler {
namespace {

// Plans what the events since the last call have made possible, until nothing more comes of it.
void Settle(StageState& state) {
  do {
    PlanImports(state);
    PlanSteps(state);
    PlanExports(state);
  } while (ForwardTransfers(state));
}

void Obey(StageState& state, const AssignEncode& assign) {
  if (!state.over.Contains(assign.task)) Admit(state, assign);
}
void Obey(StageState& state, const AssignPrefill& assign) {
  if (!state.over.Contains(assign.task)) Admit(state, assign);
}
void Obey(StageState& state, const AssignDecode& assign) {
  if (state.over.Contains(assign.task)) return;
  Admit(state, assign);
  if (PrefillTask* producer = Find(state.prefills, assign.producer)) TakeOver(state, *producer);
}
void Obey(StageState& state, const BindConsumer& bind) {
  PrefillTask* task = Find(state.prefills, bind.producer);
  if (task == nullptr) return;
  // Task ids rise: an earlier word that comes late, or one that comes again, changes nothing.
  const TaskId known = task->consumer ? task->consumer->consumer : TaskId();
  if (bind.consumer < known || (bind.consumer == known && !task->out_of_reach)) return;
  task->consumer = bind;
  task->out_of_reach = false;
  OfferKv(state, *task);
}
void Obey(StageState& state, const Rebind& rebind) {
  PrefillTask* task = Find(state.prefills, rebind.consumer);
  if (task != nullptr) BindProducer(state, *task, rebind.input);
}
void Obey(StageState& state, const ReleaseTask& release) { Release(state, release.task); }
void Obey(StageState& state, const DrainWorker&) { state.draining = true; }

}  // namespace

StageScheduler::StageScheduler(StageConfig config)
    : state_(std::make_unique<StageState>(std::move(config))) {
  CHECK_EQ(state_->config.profile.kv_bytes_per_token % state_->config.num_layers, 0);
  // Else an export could wait for ever.
  CHECK_LE(LargestPiece(state_->config), state_->sender.arena().size());
}

StageScheduler::~StageScheduler() = default;

void StageScheduler::Handle(const SchedulerToWorker& message, base::TimePoint now) {
  state_->now = now;
  std::visit([&](const auto& m) { Obey(*state_, m); }, message);
  ForwardTransfers(*state_);
}

void StageScheduler::OnPulled(TaskId task, absl::StatusOr<PulledInput> input, base::TimePoint now) {
  state_->now = now;
  InputPulled(*state_, task, std::move(input));
  ForwardTransfers(*state_);
}

void StageScheduler::OnMediaReady(TaskId task, absl::StatusOr<Grid> grid, base::TimePoint now) {
  state_->now = now;
  MediaReady(*state_, task, std::move(grid));
  ForwardTransfers(*state_);
}

void StageScheduler::OnTransferMessage(Incarnation peer, const TransferMessage& message,
                                       base::TimePoint now) {
  state_->now = now;
  state_->sender.Handle(peer, message, now);
  state_->receiver.Handle(peer, message, now);
  ForwardTransfers(*state_);
}

void StageScheduler::OnPieceSent(Incarnation peer, uint64_t sequence, absl::Status status,
                                 base::TimePoint now) {
  state_->now = now;
  state_->sender.OnSent(peer, sequence, status, now);
  ForwardTransfers(*state_);
}

void StageScheduler::OnPieceReceived(Incarnation peer, uint64_t sequence, absl::Status status,
                                     uint64_t checksum, base::TimePoint now) {
  state_->now = now;
  state_->receiver.OnReceived(peer, sequence, status, checksum, now);
  ForwardTransfers(*state_);
}

void StageScheduler::OnPeerLost(Incarnation peer, base::TimePoint now) {
  state_->now = now;
  state_->sender.PeerLost(peer, now);
  state_->receiver.PeerLost(peer, now);
  ForwardTransfers(*state_);
}

void StageScheduler::OnStepResult(StepResult result, base::TimePoint now) {
  state_->now = now;
  StepDone(*state_, result);
  ForwardTransfers(*state_);
}

void StageScheduler::OnImported(BufferId buffer, base::TimePoint now) {
  state_->now = now;
  ImportDone(*state_, buffer);
  ForwardTransfers(*state_);
}

void StageScheduler::OnExported(const ExportResult& result, base::TimePoint now) {
  state_->now = now;
  ExportDone(*state_, result);
  ForwardTransfers(*state_);
}

void StageScheduler::OnTokenReply(const TokenReply& reply, base::TimePoint now) {
  state_->now = now;
  TokenReplied(*state_, reply);
  ForwardTransfers(*state_);
}

void StageScheduler::OnTokenStreamReset(Incarnation gateway, base::TimePoint now) {
  state_->now = now;
  TokenStreamReset(*state_, gateway);
  ForwardTransfers(*state_);
}

void StageScheduler::OnTime(base::TimePoint now) {
  state_->now = now;
  state_->sender.OnTime(now);
  state_->receiver.OnTime(now);
  ForwardTransfers(*state_);
}

base::TimePoint StageScheduler::NextDeadline() const {
  return std::min(state_->sender.NextDeadline(), state_->receiver.NextDeadline());
}

std::vector<StageAction> StageScheduler::TakeActions() {
  Settle(*state_);
  return std::exchange(state_->actions, {});
}

WorkerReport StageScheduler::Report(bool with_inventory) const {
  return MakeReport(*state_, with_inventory);
}

StageStats StageScheduler::Stats() const {
  return {.tasks = static_cast<int32_t>(state_->encodes.size() + state_->prefills.size() +
                                        state_->decodes.size()),
          .kv_blocks = state_->blocks.num_held(),
          .embedding_slots =
              state_->slot_pages.num_held() * state_->config.profile.embedding_page_slots,
          .in_flight = state_->steps.in_flight(),
          .staged_bytes = state_->sender.staged_bytes(),
          .landed_bytes = state_->receiver.landing_bytes(),
          .transfers = state_->sender.num_transfers() + state_->receiver.num_inputs()};
}

bool StageScheduler::draining() const { return state_->draining; }

}  // namespace triptych::scheduler
