#pragma once

// The scheduler's numbers for Prometheus, from its snapshots.

#include "base/metrics.h"
#include "scheduler/cluster/cluster_actions.h"

namespace triptych::services {

// One thread, but for OnDroppedEvent.
class SchedulerMetrics {
 public:
  explicit SchedulerMetrics(base::Registry* registry);
  void OnSnapshot(const scheduler::ClusterSnapshot& snapshot);
  void OnDroppedEvent() const { dropped_events_.Increment(); }

 private:
  base::Registry* const registry_;
  base::Gauge queued_prefill_, queued_patches_, held_requests_;
  base::Gauge requests_[6];
  base::Gauge queue_age_[scheduler::kNumStages];
  base::Gauge serving_[scheduler::kNumStages], draining_[scheduler::kNumStages];
  base::Counter admitted_, restarts_, workers_lost_, streams_lost_, cut_offs_, dropped_events_;
  scheduler::ClusterSnapshot last_;
};

}  // namespace triptych::services
