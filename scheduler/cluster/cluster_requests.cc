// Requests come in, wait, and end.

#include <set>
#include <utility>

#include "base/check.h"
#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {
namespace {

std::set<Rank>& LaneOf(Pool* pool, const Request& request) {
  return request.submit.items.empty() ? pool->text_only : pool->with_items;
}

}  // namespace

Request* ClusterScheduler::FindRequest(RequestId id) {
  auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.get();
}

Pool* ClusterScheduler::PoolOf(const Request& request) {
  return pools_.at(request.submit.fingerprint).get();
}

Pool* ClusterScheduler::FindOrMakePool(const std::string& fingerprint, base::TimePoint now) {
  auto& pool = pools_[fingerprint];
  if (pool == nullptr) {
    pool = std::make_unique<Pool>();
    pool->missing_since.fill(now);
  }
  return pool.get();
}

absl::Status ClusterScheduler::Admit(const SubmitRequest& submit, Pool** pool,
                                     base::TimePoint now) {
  auto it = pools_.find(submit.fingerprint);
  if (it == pools_.end()) {
    bool others = pools_.size() >= kMostPools;
    for (const auto& [name, other] : pools_) others = others || other->seen_worker;
    if (others && !recovering_) return absl::FailedPreconditionError("no worker serves this model");
    if (pools_.size() >= kMostPools) return absl::UnavailableError("still recovering");
  }
  *pool = FindOrMakePool(submit.fingerprint, now);
  if (absl::Status size = CheckSize((*pool)->sizes.view(), submit, config_); !size.ok())
    return size;
  if (recovering_) return absl::OkStatus();
  const Request probe{.submit = submit};
  for (Stage stage : {Stage::kEncode, Stage::kPrefill, Stage::kDecode}) {
    const base::TimePoint since = (*pool)->missing_since[static_cast<int>(stage)];
    if (probe.Needs(stage) && since != base::kNever && now - since >= config_.role_grace) {
      return absl::UnavailableError("no worker has a role that the request needs");
    }
  }
  return absl::OkStatus();
}

// What an earlier scheduler has admitted keeps its age.
Rank ClusterScheduler::RankOf(const SubmitRequest& submit) {
  uint64_t age = submit.age;
  if (age == 0) age = fair_.Admit(submit.tenant, int64_t{submit.prompt_tokens} + submit.max_tokens);
  if (submit.age != 0) fair_.Reach(age);
  return {submit.priority, age, submit.request};
}

void ClusterScheduler::Submit(const SubmitRequest& submit, Submission kind, base::TimePoint now) {
  const RequestId id = submit.request;
  auto gateway = gateways_.find(id.gateway);
  if (gateway == gateways_.end()) return;
  if (FindRequest(id) != nullptr) {
    actions_.emplace_back(ToGateway{id.gateway, RequestAdmitted{id, FindRequest(id)->rank.age}});
    return;
  }
  // What has been accepted once is not refused for its cost when it comes back.
  const QueueCost queued = kind == Submission::kNew ? queued_ : QueueCost{};
  absl::Status status = CheckAdmission(queued, submit, config_.queue);
  Pool* pool = nullptr;
  if (status.ok()) status = Admit(submit, &pool, now);
  if (!status.ok()) {
    const bool retry = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
    const base::Duration retry_after = retry ? config_.retry_after : base::Duration(0);
    actions_.emplace_back(ToGateway{id.gateway, RequestFailed{id, status, retry_after}});
    return;
  }
  auto request = std::make_unique<Request>();
  request->submit = submit;
  request->rank = RankOf(submit);
  request->admitted = now;
  request->epoch = submit.epoch;
  request->resubmitted = recovering_ || kind == Submission::kAgain;
  if (submit.time_left != base::Duration(0)) {
    request->deadline = now + submit.time_left;
    deadlines_.insert({request->deadline, id});
  }
  gateway->second.requests.insert(id);
  ++totals_.admitted;
  actions_.emplace_back(ToGateway{id.gateway, RequestAdmitted{id, request->rank.age}});
  Request* added = request.get();
  requests_.emplace(id, std::move(request));
  Enqueue(added);
  if (!recovering_) Claim(added);
}

void ClusterScheduler::Enqueue(Request* request) {
  CHECK_TRUE(!request->waiting);
  request->state = InQueue{};
  request->waiting = true;
  queued_ += CostOf(request->submit);
  Pool* pool = PoolOf(*request);
  LaneOf(pool, *request).insert(request->rank);
  pool->dirty = true;
}

void ClusterScheduler::Dequeue(Request* request) {
  if (!request->waiting) return;
  request->waiting = false;
  queued_ -= CostOf(request->submit);
  LaneOf(PoolOf(*request), *request).erase(request->rank);
  PoolOf(*request)->aside.erase(request->rank);
}

void ClusterScheduler::LeaveQueues(Request* request) {
  Dequeue(request);
  Pool* pool = PoolOf(*request);
  pool->want_encoder.erase(request->rank);
  WantsDecodeNoMore(request);
}

void ClusterScheduler::Fail(RequestId id, const absl::Status& status) {
  if (FindRequest(id) == nullptr) return;
  const bool retry = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
  const base::Duration retry_after = retry ? config_.retry_after : base::Duration(0);
  actions_.emplace_back(ToGateway{id.gateway, RequestFailed{id, status, retry_after}});
  End(id);
}

void ClusterScheduler::End(RequestId id) {
  Request* request = FindRequest(id);
  if (request == nullptr) return;
  LeaveQueues(request);
  ReleaseAll(request);
  deadlines_.erase({request->deadline, id});
  auto gateway = gateways_.find(id.gateway);
  if (gateway != gateways_.end()) gateway->second.requests.erase(id);
  PoolOf(*request)->dirty = true;
  requests_.erase(id);
}

void ClusterScheduler::ReleaseAll(Request* request) {
  // Taken out first: releasing never looks at the state.
  RequestState state = std::exchange(request->state, InQueue{});
  if (auto* prefilling = std::get_if<InPrefill>(&state)) {
    for (ItemProgress& item : prefilling->items) {
      if (item.encode.has_value()) Release(*std::move(item.encode));
    }
    Release(std::move(prefilling->prefill));
  } else if (auto* awaiting = std::get_if<AwaitsDecode>(&state)) {
    Release(std::move(awaiting->prefill));
  } else if (auto* handing = std::get_if<InHandover>(&state)) {
    Release(std::move(handing->decode));
    Release(std::move(handing->prefill));
  } else if (auto* decoding = std::get_if<InDecode>(&state)) {
    Release(std::move(decoding->decode));
  } else if (auto* finishing = std::get_if<AtEnd>(&state)) {
    Release(std::move(finishing->last));
  }
}

void ClusterScheduler::Release(PlacedTask task) {
  Worker* worker = FindWorker(task.worker);
  if (worker != nullptr && !worker->lost) SendRelease(worker, task.task);
  Forget(std::move(task));
}

void ClusterScheduler::Forget(PlacedTask task) {
  tasks_.erase(task.task);
  Worker* worker = FindWorker(task.worker);
  if (worker == nullptr) return;
  worker->tasks.erase(task.task);
  worker->pool->dirty = true;
}

void ClusterScheduler::RestartPrefill(Request* request, Cause cause) {
  LeaveQueues(request);
  ReleaseAll(request);
  request->epoch = OutputEpoch(request->epoch.value() + 1);
  if (cause == Cause::kLoss) ++totals_.restarts;
  Enqueue(request);
}

}  // namespace triptych::scheduler
