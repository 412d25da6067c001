#include "tests/simulation/judge.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace triptych::simulation {

using scheduler::Stage;

Judge::Judge(const scheduler::ClusterConfig& config, base::TimePoint now) : config_(config) {
  std::fill(std::begin(missing_since_), std::end(missing_since_), now);
}

void Judge::NoteRoles(base::TimePoint now) {
  for (int stage = 0; stage < scheduler::kNumStages; ++stage) {
    const bool have = std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
      return worker.second.has(static_cast<Stage>(stage));
    });
    base::TimePoint& since = missing_since_[stage];
    since = have ? base::kNever : std::min(since, now);
  }
}

void Judge::WorkerIs(Incarnation worker, scheduler::Roles roles, base::TimePoint now) {
  workers_[worker] = roles;
  NoteRoles(now);
}

void Judge::WorkerHas(Incarnation worker, const scheduler::WorkerReport& report) {
  for (const scheduler::TaskReport& task : report.tasks) tasks_[worker][task.task] = task.request;
}

void Judge::WorkerDrains(Incarnation worker, base::TimePoint now) {
  if (workers_.contains(worker)) WorkerIs(worker, {}, now);
}

void Judge::WorkerLost(Incarnation worker, const std::set<scheduler::RequestId>& held,
                       base::TimePoint now) {
  if (!workers_.contains(worker)) return;  // known by now
  std::set<scheduler::RequestId> with_it = held;
  for (const auto& [task, request] : tasks_[worker]) with_it.insert(request);
  for (const scheduler::RequestId& request : with_it) ++requests_[request].lost_workers;
  tasks_.erase(worker);
  workers_.erase(worker);
  NoteRoles(now);
}

void Judge::Ended(const scheduler::RequestId& request) { requests_.erase(request); }

void Judge::GatewayLost(Incarnation gateway) {
  std::erase_if(requests_, [&](const auto& r) { return r.first.gateway == gateway; });
}

void Judge::Forget(base::TimePoint now) {
  workers_.clear();
  tasks_.clear();
  requests_.clear();
  NoteRoles(now);
}

std::string Judge::Says(const scheduler::ClusterAction& action, base::TimePoint now) {
  if (const auto* to = std::get_if<scheduler::ToWorker>(&action)) {
    return ToldWorker(to->worker, to->message);
  }
  const auto* to = std::get_if<scheduler::ToGateway>(&action);
  if (to == nullptr) return "";
  if (const auto* admitted = std::get_if<scheduler::RequestAdmitted>(&to->message)) {
    requests_[admitted->request].admitted = true;
  }
  const auto* failed = std::get_if<scheduler::RequestFailed>(&to->message);
  if (failed == nullptr) return "";
  const std::string why = Failed(*failed, now);
  Ended(failed->request);
  return why;
}

std::string Judge::ToldWorker(Incarnation worker, const scheduler::SchedulerToWorker& message) {
  if (const auto* release = std::get_if<scheduler::ReleaseTask>(&message)) {
    tasks_[worker].erase(release->task);
    return "";
  }
  return std::visit(
      [&](const auto& assign) -> std::string {
        if constexpr (requires { assign.task, assign.request; }) {
          tasks_[worker][assign.task] = assign.request;
          auto it = workers_.find(worker);
          if (it != workers_.end() && it->second.bits != 0) return "";
          // What has been prefilled there is finished there.
          if constexpr (requires { assign.producer_worker; }) {
            if (it != workers_.end() && assign.producer_worker.incarnation == worker) return "";
          }
          return absl::StrCat(ToString(assign.task),
                              " was given to a worker that drains or is gone");
        } else {
          return "";
        }
      },
      message);
}

std::string Judge::Failed(const scheduler::RequestFailed& failed, base::TimePoint now) {
  bool legitimate = false;
  switch (failed.status.code()) {
    case absl::StatusCode::kDeadlineExceeded:  // the client knows its deadline
      legitimate = true;
      break;
    case absl::StatusCode::kInternal:
      legitimate = requests_[failed.request].lost_workers >= config_.max_lost_workers;
      break;
    case absl::StatusCode::kResourceExhausted: {
      const auto admitted = std::count_if(requests_.begin(), requests_.end(),
                                          [](const auto& r) { return r.second.admitted; });
      // The queue is full; or others are ahead, and the client hears when to come again.
      const bool late = failed.status.message() == "it would be answered after its deadline" &&
                        admitted > 0 && failed.retry_after >= config_.retry_after;
      legitimate =
          !requests_[failed.request].admitted && (late || admitted >= config_.queue.requests);
      break;
    }
    case absl::StatusCode::kUnavailable:
      legitimate = std::any_of(std::begin(missing_since_), std::end(missing_since_),
                               [&](base::TimePoint since) {
                                 return since != base::kNever && now - since >= config_.role_grace;
                               });
      break;
    default:
      break;
  }
  if (legitimate) return "";
  return absl::StrCat(ToString(failed.request),
                      " was failed without a reason: ", failed.status.ToString(), ", lost workers ",
                      requests_[failed.request].lost_workers, RolesMissing(now));
}

// For a failure's message.
std::string Judge::RolesMissing(base::TimePoint now) const {
  std::string text;
  for (int stage = 0; stage < scheduler::kNumStages; ++stage) {
    const base::TimePoint since = missing_since_[stage];
    if (since == base::kNever) continue;
    absl::StrAppend(&text, ", no ", ToString(static_cast<Stage>(stage)), " for ",
                    (now - since) / std::chrono::milliseconds(1), " ms");
  }
  return text;
}

}  // namespace triptych::simulation
