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

void ClusterScheduler::SeeHighest(const SchedulerId& highest, Incarnation peer,
                                  base::TimePoint now) {
  if (highest.term > 0) all_fresh_ = false;
  if (highest == id_ || highest.term >= kHighestTerm) return;  // the wire refuses such terms
  if (recovering_) {
    if (highest.term >= id_.term) id_.term = highest.term + 1;
  } else if (highest > id_) {
    StepDown(peer, now);
    id_.term = highest.term + 1;
  }
}

// The stream that says hello is not dropped with the others. Nobody is lost and nothing fails:
// another scheduler has it all.
void ClusterScheduler::StepDown(Incarnation speaker, base::TimePoint now) {
  const auto drop = [&](Incarnation peer) {
    if (peer != speaker) actions_.emplace_back(DropPeer{peer, DropPeer::Why::kAskAgain});
  };
  for (const auto& [peer, worker] : workers_) drop(peer);
  for (const auto& [peer, gateway] : gateways_) drop(peer);
  requests_.clear();
  tasks_.clear();
  workers_.clear();
  gateways_.clear();
  pools_.clear();
  deadlines_.clear();
  reopenings_.clear();
  awaited_peers_.clear();
  unclaimed_at_.clear();
  joined_.clear();
  left_.clear();
  told_models_.clear();
  queued_ = QueueCost();
  peers_named_ = false;
  recovering_ = true;
  first_hello_ = now;
}

void ClusterScheduler::OnWorkerConnected(const WorkerHello& hello, base::TimePoint now) {
  now_ = now;
  const Incarnation incarnation = hello.profile.incarnation;
  SeeHighest(hello.highest_seen, incarnation, now);
  BeginWatch(now);
  auto& worker = workers_[incarnation];
  if (worker == nullptr) {
    joined_.push_back(incarnation);
    worker = std::make_unique<Worker>(hello.profile, FreeOf(hello.report));
    worker->pool = FindOrMakePool(hello.profile.fingerprint, now);
    worker->pool->seen_worker = true;
  } else {
    worker->view.ledger.Restart(FreeOf(hello.report));
    ForgetSequences(worker.get());
  }
  worker->presence.Connect(now);
  SetMissing(worker.get(), false);
  const bool told_to_drain = worker->view.draining;
  worker->view.draining = told_to_drain || hello.draining;
  if (told_to_drain && !hello.draining) Send(worker.get(), DrainWorker{});
  Reindex(worker.get(), now);
  worker->pool->dirty = true;
  OnTask(incarnation, hello.report, now);
  awaited_peers_.erase(incarnation);
  CheckRecovery(now);
}

void ClusterScheduler::OnGatewayConnected(const GatewayHello& hello, base::TimePoint now) {
  now_ = now;
  SeeHighest(hello.highest_seen, hello.incarnation, now);
  BeginWatch(now);
  if (!gateways_.contains(hello.incarnation)) joined_.push_back(hello.incarnation);
  Gateway& gateway = gateways_[hello.incarnation];
  gateway.told = false;
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
  CheckRecovery(now);
}

void ClusterScheduler::OnPeerDisconnected(Incarnation peer, base::TimePoint now) {
  now_ = now;
  if (Worker* worker = FindWorker(peer); worker != nullptr && worker->presence.connected()) {
    worker->presence.disconnected_at = now;
    SetMissing(worker, true);
    ++totals_.streams_lost;
  }
  auto gateway = gateways_.find(peer);
  if (gateway != gateways_.end() && gateway->second.presence.connected()) {
    gateway->second.presence.disconnected_at = now;
    ++totals_.streams_lost;
  }
}

void ClusterScheduler::OnPeerLost(Incarnation peer, base::TimePoint now) {
  now_ = now;
  if (recovering_) awaited_peers_.erase(peer);
  GiveUp(peer, now);
  CheckRecovery(now);
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
  worker->pool->view.links.Forget(incarnation);
  Reindex(worker, now);
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
  for (const auto& [key, task] : worker->unclaimed) NoLongerUnclaimed(key.first, worker);
  workers_.erase(incarnation);
  left_.push_back(incarnation);
}

void ClusterScheduler::LoseGateway(Incarnation incarnation) {
  auto gateway = gateways_.find(incarnation);
  if (gateway == gateways_.end()) return;
  const std::set<RequestId> requests = gateway->second.requests;
  for (RequestId id : requests) End(id);
  gateways_.erase(incarnation);
  left_.push_back(incarnation);
}

// The worker takes work from now on, or no longer; one that is missing for a while still counts.
void ClusterScheduler::Reindex(Worker* worker, base::TimePoint now) {
  const bool takes = !worker->lost && !worker->view.draining;
  if (takes == worker->in_view) return;
  worker->in_view = takes;
  Pool* pool = worker->pool;
  if (takes) {
    pool->view.Add(&worker->view);
    pool->sizes.Add(worker->view.profile);
  } else {
    pool->view.Remove(&worker->view);
    pool->sizes.Remove(worker->view.profile, now);
  }
  pool->view.kinds = pool->sizes.living();
  pool->roles = {};
  for (int i = 0; i < kNumStages; ++i) {
    base::TimePoint& missing = pool->missing_since[i];
    if (pool->view.of(static_cast<Stage>(i)).members().empty()) {
      missing = std::min(missing, now);
    } else {
      missing = base::kNever;
      pool->roles.add(static_cast<Stage>(i));
    }
  }
  TakeBack(pool);
  pool->dirty = true;
}

// Once a round, and only what has changed: thousands of workers may come at once. A gateway that is
// new is told everything.
void ClusterScheduler::TellMembership() {
  std::vector<ModelRoles> models;
  for (const auto& [fingerprint, pool] : pools_) {
    if (pool->roles != Roles()) models.push_back({fingerprint, pool->roles});
  }
  Membership news{
      .peers = std::exchange(joined_, {}), .gone = std::exchange(left_, {}), .models = models};
  for (auto& [incarnation, gateway] : gateways_) {
    if (!std::exchange(gateway.told, true)) {
      actions_.emplace_back(ToGateway{incarnation, WholeMembership(models)});
    } else if (!news.peers.empty() || !news.gone.empty() || models != told_models_) {
      actions_.emplace_back(ToGateway{incarnation, news});
    }
  }
  told_models_ = std::move(models);
}

Membership ClusterScheduler::WholeMembership(const std::vector<ModelRoles>& models) const {
  Membership whole{.whole = true, .models = models};
  for (const auto& [incarnation, worker] : workers_) whole.peers.push_back(incarnation);
  for (const auto& [incarnation, gateway] : gateways_) whole.peers.push_back(incarnation);
  // Were this one to die too, the next must wait for them as well, or give them up.
  whole.peers.insert(whole.peers.end(), awaited_peers_.begin(), awaited_peers_.end());
  return whole;
}

void ClusterScheduler::Drain(Incarnation incarnation, base::TimePoint now) {
  now_ = now;
  Worker* worker = FindWorker(incarnation);
  if (worker == nullptr) return;
  worker->view.draining = true;
  Send(worker, DrainWorker{});
  Reindex(worker, now);
}

void ClusterScheduler::Tick(base::TimePoint now) {
  if (now - next_tick_ > kOwnStall) {
    for (auto& [incarnation, worker] : workers_) worker->presence.Forgive(now);
    for (auto& [incarnation, gateway] : gateways_) gateway.presence.Forgive(now);
  }
  LoseMissing(now);
  if (!recovering_) {
    ReleaseUnclaimed(now);
    for (auto& [fingerprint, pool] : pools_) {
      FailWithoutRole(pool.get(), now);
      pool->dirty = true;  // a thorough look from time to time
      if (pool->sizes.Expire(now, config_.role_grace)) FailTooLarge(pool.get(), now);
    }
  }
  const bool idle = workers_.empty() && gateways_.empty();
  next_tick_ = idle ? base::kNever : now + config_.tick;
}

void ClusterScheduler::SetMissing(Worker* worker, bool missing) {
  if (worker->view.missing == missing) return;
  worker->view.missing = missing;
  worker->view.Changed();
  if (!missing) worker->pool->dirty = true;
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
    SetMissing(worker.get(), worker->presence.IsMissing(config_, now));
  }
  for (const auto& [incarnation, gateway] : gateways_) look(incarnation, gateway.presence);
  if (guard_.Holds(!due.empty(), config_, now)) return;
  for (Incarnation peer : due) GiveUp(peer, now);
}

// The workers that were large enough have been gone for too long.
void ClusterScheduler::FailTooLarge(Pool* pool, base::TimePoint) {
  std::vector<RequestId> too_large;
  for (const auto* waiting : {&pool->aside, &pool->want_encoder, &pool->want_decode}) {
    for (const Rank& rank : *waiting) {
      const SubmitRequest& submit = FindRequest(rank.request)->submit;
      if (!CheckSize(pool->sizes.view(), submit, config_).ok()) too_large.push_back(rank.request);
    }
  }
  for (RequestId id : too_large) {
    Fail(id, absl::UnavailableError("no worker that is left is large enough"));
  }
}

void ClusterScheduler::FailWithoutRole(Pool* pool, base::TimePoint now) {
  std::set<RequestId> stranded;
  for (Stage stage : {Stage::kEncode, Stage::kPrefill, Stage::kDecode}) {
    const base::TimePoint since = pool->missing_since[static_cast<int>(stage)];
    if (since == base::kNever || now - since < config_.role_grace) continue;
    for (const auto* lane : {&pool->with_items, &pool->text_only, &pool->aside}) {
      for (const Rank& rank : *lane) {
        if (FindRequest(rank.request)->Needs(stage)) stranded.insert(rank.request);
      }
    }
    if (stage == Stage::kEncode) {
      for (const Rank& rank : pool->want_encoder) stranded.insert(rank.request);
    } else if (stage == Stage::kDecode) {
      for (const Rank& rank : pool->want_decode) stranded.insert(rank.request);
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
