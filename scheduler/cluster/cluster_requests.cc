// Requests come in, wait, and end.

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"
#include "scheduler/cluster/cluster_scheduler.h"
#include "scheduler/cluster/forecast.h"

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

QueueCost ClusterScheduler::AheadOf(const Pool& pool, const Rank& rank) const {
  QueueCost ahead;
  for (const auto* lane : {&pool.with_items, &pool.text_only}) {
    for (const Rank& other : *lane) {
      if (!(other < rank)) break;
      ahead += CostOf(requests_.at(other.request)->submit);
    }
  }
  return ahead;
}

// A request that could not make its deadline even alone is left to it: no load is to blame.
absl::Status ClusterScheduler::CheckDeadline(const Pool& pool, const SubmitRequest& submit,
                                             const Rank& rank, base::Duration* retry_after) const {
  if (submit.time_left == base::Duration(0) || recovering_) return absl::OkStatus();
  const double left = base::ToSeconds(submit.time_left) / config_.deadline_margin;
  // Answers end where they end: a client that names no bound means none.
  const auto tokens =
      static_cast<int32_t>(std::min<double>(submit.max_tokens, 1 + 1.5 * pool.typical_tokens));
  const auto late = [&](const QueueCost& ahead) -> std::optional<double> {
    const std::optional<Forecast> forecast = ForecastOf(pool.view, submit, tokens, ahead);
    if (!forecast.has_value() || forecast->seconds <= left || forecast->alone > left) {
      return std::nullopt;
    }
    return forecast->seconds - left;
  };
  // The whole queue is known; what of it is ahead takes a walk.
  if (!late(queued_).has_value()) return absl::OkStatus();
  const std::optional<double> seconds = late(AheadOf(pool, rank));
  if (!seconds.has_value()) return absl::OkStatus();
  const auto wait = std::chrono::duration_cast<base::Duration>(
      std::chrono::duration<double>(std::min(*seconds, 1e6)));
  *retry_after = std::clamp(wait, config_.retry_after, config_.longest_retry_after);
  return absl::ResourceExhaustedError("it would be answered after its deadline");
}

// Tokens are not told here, but how long they took is known.
void ClusterScheduler::LearnLength(const Request& request, base::TimePoint now) {
  if (request.decode_since == base::kNever) return;
  Pool* pool = pools_.at(request.submit.fingerprint).get();
  const WorkerView* worker = nullptr;
  ForEachTask(request, [&](const PlacedTask& task) {
    if (worker == nullptr) worker = pool->view.Find(task.worker, Stage::kDecode);
  });
  if (worker == nullptr) return;
  const double step = PredictedSeconds(pool->view, *worker, Stage::kDecode, 1);
  const double tokens = base::ToSeconds(now - request.decode_since) / step;
  constexpr double kWeight = 0.05;
  pool->typical_tokens +=
      kWeight * (std::min<double>(tokens, request.submit.max_tokens) - pool->typical_tokens);
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
  base::Duration retry_after = config_.retry_after;
  Rank rank;
  if (status.ok()) {
    rank = RankOf(submit);
    if (kind == Submission::kNew) status = CheckDeadline(*pool, submit, rank, &retry_after);
  }
  if (!status.ok()) {
    const bool retry = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
    if (!retry) retry_after = base::Duration(0);
    actions_.emplace_back(ToGateway{id.gateway, RequestFailed{id, status, retry_after}});
    return;
  }
  auto request = std::make_unique<Request>();
  request->submit = submit;
  request->rank = rank;
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
