// Processes come and go.

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "scheduler/cluster/cluster_scheduler.h"
#include "scheduler/plan/limits.h"

namespace triptych::scheduler {
namespace {

// Later than this, it was this process that stood still: nobody is blamed for its silence.
constexpr base::Duration kOwnStall = std::chrono::seconds(1);

Amount FreeOf(const WorkerReport& report) {
  return {report.free_kv_blocks, report.free_embedding_slots, report.free_sequences};
}

}  // namespace

Worker* ClusterScheduler::FindWorker(Incarnation incarnation) {
  auto it = workers_.find(incarnation);
  return it == workers_.end() ? nullptr : it->second.get();
}

bool ClusterScheduler::HasRoomFor(const std::string& fingerprint) {
  if (workers_.size() >= kMostWorkers) return false;
  if (pools_.contains(fingerprint) || pools_.size() < kMostPools) return true;
  std::set<std::string> used;
  for (const auto& [incarnation, worker] : workers_) used.insert(worker->view.profile.fingerprint);
  for (const auto& [id, request] : requests_) used.insert(request->submit.fingerprint);
  std::erase_if(pools_, [&](const auto& pool) { return !used.contains(pool.first); });
  return pools_.size() < kMostPools;
}

void ClusterScheduler::BeginWatch(base::TimePoint now) {
  if (next_tick_ == base::kNever) next_tick_ = now + config_.tick;
  if (first_hello_ == base::kNever) first_hello_ = now;
}

void ClusterScheduler::SeeHighest(const SchedulerId& highest, base::TimePoint now) {
  if (highest.term > 0) all_fresh_ = false;
  if (highest == id_ || highest.term >= kHighestTerm) return;  // the wire refuses such terms
  if (recovering_) {
    if (highest.term >= id_.term) id_.term = highest.term + 1;
  } else if (highest > id_) {
    StepDown(now);
    id_.term = highest.term + 1;
  }
}

void ClusterScheduler::StepDown(base::TimePoint now) {
  constexpr auto kWhy = DropPeer::Why::kAskAgain;
  for (const auto& [peer, worker] : workers_) actions_.emplace_back(DropPeer{peer, kWhy});
  for (const auto& [peer, gateway] : gateways_) actions_.emplace_back(DropPeer{peer, kWhy});
  requests_.clear();
  tasks_.clear();
  workers_.clear();
  gateways_.clear();
  pools_.clear();
  deadlines_.clear();
  reopenings_.clear();
  awaited_peers_.clear();
  queued_ = QueueCost();
  peers_named_ = false;
  recovering_ = true;
  first_hello_ = now;
}

void ClusterScheduler::OnWorkerConnected(const WorkerHello& hello, base::TimePoint now) {
  const Incarnation incarnation = hello.profile.incarnation;
  // The stream that says hello must not be dropped with the others.
  if (!recovering_ && hello.highest_seen > id_) LoseWorker(incarnation, now);
  SeeHighest(hello.highest_seen, now);
  BeginWatch(now);
  auto& worker = workers_[incarnation];
  if (worker == nullptr) {
    worker = std::make_unique<Worker>(hello.profile, FreeOf(hello.report));
    worker->pool = FindOrMakePool(hello.profile.fingerprint, now);
    worker->pool->seen_worker = true;
  } else {
    worker->view.ledger.Restart(FreeOf(hello.report));
    ForgetSequences(worker.get());
  }
  worker->presence.Connect(now);
  worker->view.missing = false;
  const bool told_to_drain = worker->view.draining;
  worker->view.draining = told_to_drain || hello.draining;
  if (told_to_drain && !hello.draining) Send(worker.get(), DrainWorker{});
  Reindex(worker->pool, now);
  OnTask(incarnation, hello.report, now);
  awaited_peers_.erase(incarnation);
  TellMembership();
  CheckRecovery(now);
  Place(now);
}

void ClusterScheduler::OnGatewayConnected(const GatewayHello& hello, base::TimePoint now) {
  if (!recovering_ && hello.highest_seen > id_) LoseGateway(hello.incarnation);
  SeeHighest(hello.highest_seen, now);
  BeginWatch(now);
  Gateway& gateway = gateways_[hello.incarnation];
  gateway.hello = hello;
  gateway.hello.live.clear();
  gateway.presence.Connect(now);
  std::set<RequestId> live;
  for (const SubmitRequest& submit : hello.live) live.insert(submit.request);
  const std::set<RequestId> known = gateway.requests;
  for (RequestId id : known) {
    if (!live.contains(id)) End(id);
  }
  for (const SubmitRequest& submit : hello.live) {
    if (submit.request.gateway == hello.incarnation) Submit(submit, Submission::kAgain, now);
  }
  awaited_peers_.erase(hello.incarnation);
  for (Incarnation peer : hello.known_peers) {
    if (!recovering_) break;
    peers_named_ = true;
    if (!workers_.contains(peer) && !gateways_.contains(peer)) awaited_peers_.insert(peer);
  }
  TellMembership();
  CheckRecovery(now);
  Place(now);
}

void ClusterScheduler::OnPeerDisconnected(Incarnation peer, base::TimePoint now) {
  if (Worker* worker = FindWorker(peer); worker != nullptr && worker->presence.connected()) {
    worker->presence.disconnected_at = now;
    worker->view.missing = true;
    ++totals_.streams_lost;
  }
  auto gateway = gateways_.find(peer);
  if (gateway != gateways_.end() && gateway->second.presence.connected()) {
    gateway->second.presence.disconnected_at = now;
    ++totals_.streams_lost;
  }
}

void ClusterScheduler::OnPeerLost(Incarnation peer, base::TimePoint now) {
  if (recovering_) awaited_peers_.erase(peer);
  GiveUp(peer, now);
  CheckRecovery(now);
  Place(now);
}

void ClusterScheduler::GiveUp(Incarnation peer, base::TimePoint now) {
  actions_.emplace_back(DropPeer{peer, DropPeer::Why::kLost});
  LoseWorker(peer, now);
  LoseGateway(peer);
}

void ClusterScheduler::LoseWorker(Incarnation incarnation, base::TimePoint now) {
  Worker* worker = FindWorker(incarnation);
  if (worker == nullptr) return;
  worker->lost = true;
  ++totals_.workers_lost;
  Reindex(worker->pool, now);
  const std::vector<TaskId> tasks(worker->tasks.begin(), worker->tasks.end());
  std::set<RequestId> counted;
  for (TaskId task : tasks) {
    auto entry = tasks_.find(task);
    if (entry == tasks_.end()) continue;  // went with another task of its request
    const RequestId id = entry->second.request;
    if (counted.insert(id).second && ++FindRequest(id)->lost_workers >= config_.max_lost_workers) {
      Fail(id, absl::InternalError("several workers were lost with the request"));
      continue;
    }
    TaskGone(task);
  }
  CHECK_TRUE(worker->tasks.empty());
  workers_.erase(incarnation);
  TellMembership();
}

void ClusterScheduler::LoseGateway(Incarnation incarnation) {
  auto gateway = gateways_.find(incarnation);
  if (gateway == gateways_.end()) return;
  const std::set<RequestId> requests = gateway->second.requests;
  for (RequestId id : requests) End(id);
  gateways_.erase(incarnation);
  TellMembership();
}

void ClusterScheduler::Reindex(Pool* pool, base::TimePoint now) {
  pool->roles = {};
  for (int i = 0; i < kNumStages; ++i) {
    const auto stage = static_cast<Stage>(i);
    auto& workers = pool->view.workers[i];
    workers.clear();
    for (const auto& [incarnation, worker] : workers_) {
      const WorkerView& view = worker->view;
      if (worker->pool != pool || worker->lost || view.draining) continue;
      if (view.profile.roles.has(stage)) workers.push_back(&view);
    }
    base::TimePoint& missing = pool->missing_since[i];
    if (!workers.empty()) {
      missing = base::kNever;
      pool->roles.add(stage);
    } else if (missing == base::kNever) {
      missing = now;
    }
  }
  pool->dirty = true;
}

void ClusterScheduler::TellMembership() {
  Membership membership;
  for (const auto& [incarnation, worker] : workers_) membership.peers.push_back(incarnation);
  for (const auto& [incarnation, gateway] : gateways_) membership.peers.push_back(incarnation);
  // Were this one to die too, the next must wait for them as well, or give them up.
  membership.peers.insert(membership.peers.end(), awaited_peers_.begin(), awaited_peers_.end());
  for (const auto& [fingerprint, pool] : pools_) {
    if (pool->roles != Roles()) membership.models.push_back({fingerprint, pool->roles});
  }
  for (const auto& [incarnation, gateway] : gateways_) {
    actions_.emplace_back(ToGateway{incarnation, membership});
  }
}

void ClusterScheduler::Drain(Incarnation incarnation, base::TimePoint now) {
  Worker* worker = FindWorker(incarnation);
  if (worker == nullptr) return;
  worker->view.draining = true;
  Send(worker, DrainWorker{});
  Reindex(worker->pool, now);
  TellMembership();
  Place(now);
}

void ClusterScheduler::Tick(base::TimePoint now) {
  if (now - next_tick_ > kOwnStall) {
    for (auto& [incarnation, worker] : workers_) worker->presence.Forgive(now);
    for (auto& [incarnation, gateway] : gateways_) gateway.presence.Forgive(now);
  }
  LoseMissing(now);
  if (!recovering_) {
    ReleaseUnclaimed(now);
    for (auto& [fingerprint, pool] : pools_) FailWithoutRole(pool.get(), now);
  }
  const bool idle = workers_.empty() && gateways_.empty();
  next_tick_ = idle ? base::kNever : now + config_.tick;
}

// A peer that is missing gets nothing new, and is lost when its time is over; nobody is while this
// process itself is cut off.
void ClusterScheduler::LoseMissing(base::TimePoint now) {
  std::vector<Incarnation> due;
  guard_.Begin();
  const auto look = [&](Incarnation peer, const Presence& presence) {
    guard_.Count(presence, config_, now);
    if (presence.IsLost(config_, now)) due.push_back(peer);
  };
  for (auto& [incarnation, worker] : workers_) {
    look(incarnation, worker->presence);
    worker->view.missing = worker->presence.IsMissing(config_, now);
  }
  for (const auto& [incarnation, gateway] : gateways_) look(incarnation, gateway.presence);
  if (guard_.Holds(!due.empty(), config_, now)) return;
  for (Incarnation peer : due) GiveUp(peer, now);
}

void ClusterScheduler::FailWithoutRole(Pool* pool, base::TimePoint now) {
  std::set<RequestId> stranded;
  for (Stage stage : {Stage::kEncode, Stage::kPrefill, Stage::kDecode}) {
    const base::TimePoint since = pool->missing_since[static_cast<int>(stage)];
    if (since == base::kNever || now - since < config_.role_grace) continue;
    const auto add = [&](RequestId id) {
      if (FindRequest(id)->Needs(stage)) stranded.insert(id);
    };
    pool->with_items.ForEach(add);
    pool->text_only.ForEach(add);
    if (stage == Stage::kEncode) {
      for (const Turn& turn : pool->want_encoder) stranded.insert(turn.request);
    } else if (stage == Stage::kDecode) {
      for (const Turn& turn : pool->want_decode) stranded.insert(turn.request);
    }
  }
  bool others = false;
  for (const auto& [name, other] : pools_) others = others || other->seen_worker;
  const bool unknown_model = others && !pool->seen_worker;
  for (RequestId id : stranded) {
    Fail(id, unknown_model ? absl::FailedPreconditionError("no worker serves this model")
                           : absl::UnavailableError("no worker has a role that the request needs"));
  }
}

}  // namespace triptych::scheduler
