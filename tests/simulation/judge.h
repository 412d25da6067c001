#pragma once

// Whether a request may have failed. It keeps its own books of what each scheduler was told and has
// said, so that an error of the scheduler's is judged by what really happened: a lost, killed or
// frozen worker alone is no reason, up to the bounds that are documented.

#include <map>
#include <set>
#include <string>

#include "base/clock.h"
#include "scheduler/cluster/cluster_actions.h"
#include "scheduler/cluster/cluster_config.h"
#include "tests/simulation/world.h"

namespace triptych::simulation {

// One scheduler's books.
class Judge {
 public:
  Judge(const scheduler::ClusterConfig& config, base::TimePoint now);

  // ---- what the scheduler hears ----
  // Which stages a connected worker takes new work of.
  void WorkerIs(Incarnation worker, scheduler::Roles roles, base::TimePoint now);
  // Its hello's inventory: the scheduler may adopt what it shows, and hear of its end from nobody.
  void WorkerHas(Incarnation worker, const scheduler::WorkerReport& report);
  // The scheduler was told that it takes nothing new.
  void WorkerDrains(Incarnation worker, base::TimePoint now);
  // It is gone, with tasks of these requests beside those that the books show.
  void WorkerLost(Incarnation worker, const std::set<scheduler::RequestId>& held,
                  base::TimePoint now);
  void Ended(const scheduler::RequestId& request);
  void GatewayLost(Incarnation gateway);

  // ---- what the scheduler says ----
  // Empty, or why it must not have been said.
  std::string Says(const scheduler::ClusterAction& action, base::TimePoint now);
  // It has started again above another scheduler.
  void Forget(base::TimePoint now);

 private:
  struct Request {
    bool admitted = false;
    int lost_workers = 0;
  };
  std::string ToldWorker(Incarnation worker, const scheduler::SchedulerToWorker& message);
  std::string Failed(const scheduler::RequestFailed& failed, base::TimePoint now);
  void NoteRoles(base::TimePoint now);
  std::string RolesMissing(base::TimePoint now) const;

  const scheduler::ClusterConfig config_;
  std::map<Incarnation, scheduler::Roles> workers_;
  base::TimePoint missing_since_[scheduler::kNumStages];
  std::map<Incarnation, std::map<scheduler::TaskId, scheduler::RequestId>> tasks_;
  std::map<scheduler::RequestId, Request> requests_;
};

}  // namespace triptych::simulation
