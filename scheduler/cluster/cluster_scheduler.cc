#include "scheduler/cluster/cluster_scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace triptych::scheduler {

ClusterScheduler::ClusterScheduler(ClusterConfig config, Incarnation own)
    : config_(config), id_{1, own} {}

ClusterScheduler::~ClusterScheduler() { requests_.clear(); }

void ClusterScheduler::OnWorkerMessage(Incarnation from, const WorkerToScheduler& message,
                                       base::TimePoint now) {
  now_ = now;
  Worker* worker = FindWorker(from);
  if (worker == nullptr) return;
  worker->presence.Hear(now);
  if (worker->presence.connected()) SetMissing(worker, false);
  std::visit([&](const auto& m) { OnTask(from, m, now); }, message);
}

void ClusterScheduler::OnGatewayMessage(Incarnation from, const GatewayToScheduler& message,
                                        base::TimePoint now) {
  now_ = now;
  auto gateway = gateways_.find(from);
  if (gateway == gateways_.end()) return;
  gateway->second.presence.Hear(now);
  if (const auto* submit = std::get_if<SubmitRequest>(&message)) {
    const bool begun = submit->tokens_sent > 0 || submit->epoch.value() > 0;
    // A gateway speaks for its own requests alone.
    if (submit->request.gateway == from) {
      Submit(*submit, begun ? Submission::kAgain : Submission::kNew, now);
    }
  } else if (const auto* ended = std::get_if<RequestEnded>(&message)) {
    if (ended->request.gateway != from) return;
    if (const Request* request = FindRequest(ended->request)) LearnLength(*request, now);
    End(ended->request);
  }
}

void ClusterScheduler::OnTime(base::TimePoint now) {
  now_ = now;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const RequestId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    Fail(id, absl::DeadlineExceededError("the request's deadline has passed"));
  }
  while (!reopenings_.empty() && reopenings_.begin()->first <= now) {
    Worker* worker = FindWorker(reopenings_.begin()->second);
    if (worker != nullptr) Reopen(worker, now);
    reopenings_.erase(reopenings_.begin());
  }
  if (recovering_) CheckRecovery(now);
  if (next_tick_ <= now) Tick(now);
}

base::TimePoint ClusterScheduler::NextDeadline() const {
  base::TimePoint next = next_tick_;
  next = std::min(next, RecoveryDeadline());
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (!reopenings_.empty()) next = std::min(next, reopenings_.begin()->first);
  return next;
}

std::vector<ClusterAction> ClusterScheduler::TakeActions() {
  Place(now_);
  TellMembership();
  return std::exchange(actions_, std::vector<ClusterAction>());
}

ClusterSnapshot ClusterScheduler::Snapshot(base::TimePoint now) const {
  ClusterSnapshot snapshot = totals_;
  snapshot.id = id_;
  snapshot.recovering = recovering_;
  snapshot.cut_offs = guard_.times();
  snapshot.queued_prefill_tokens = queued_.prefill_tokens;
  snapshot.queued_patches = queued_.patches;
  for (const auto& [incarnation, worker] : workers_) {
    const Amount free = worker->view.ledger.free();
    WorkerSnapshot line{.profile = worker->view.profile,
                        .draining = worker->view.draining,
                        .silent_for = now - worker->presence.last_heard,
                        .free_kv_blocks = free.kv_blocks,
                        .free_embedding_slots = free.embedding_slots,
                        .free_sequences = free.sequences,
                        .load = worker->load};
    for (int stage = 0; stage < kNumStages; ++stage) {
      line.tasks[stage] = worker->view.ledger.tasks(static_cast<Stage>(stage));
    }
    snapshot.workers.push_back(std::move(line));
  }
  for (const auto& [incarnation, gateway] : gateways_) {
    snapshot.gateways.push_back({.name = gateway.hello.name,
                                 .incarnation = incarnation,
                                 .address = gateway.hello.address,
                                 .admin = gateway.hello.admin,
                                 .pid = gateway.hello.pid,
                                 .draining = gateway.hello.draining,
                                 .silent_for = now - gateway.presence.last_heard,
                                 .live_requests = static_cast<int64_t>(gateway.requests.size())});
  }
  RequestCounts& counts = snapshot.requests;
  int64_t* const by_state[] = {&counts.queued,       &counts.prefilling, &counts.awaiting_decode,
                               &counts.handing_over, &counts.decoding,   &counts.finishing};
  for (const auto& [id, request] : requests_) {
    ++*by_state[request->state.index()];
    if (const std::optional<Stage> stage = request->WaitsFor()) {
      base::Duration& oldest = snapshot.oldest_wait[static_cast<int>(*stage)];
      oldest = std::max(oldest, now - request->admitted);
    }
  }
  return snapshot;
}

}  // namespace triptych::scheduler
