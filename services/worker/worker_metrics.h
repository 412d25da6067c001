#pragma once

// A worker's numbers for Prometheus.

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/stage/stage_actions.h"

namespace triptych::services {

class WorkerMetrics {
 public:
  // Borrows `registry`. `profile` gives the sizes of the pools.
  WorkerMetrics(base::Registry* registry, const scheduler::WorkerProfile& profile);

  void OnLoad(const scheduler::WorkerReport& report, const scheduler::StageStats& stats) const;
  void OnSubmit(const scheduler::StepPlan& plan, int max_batch) const;
  void OnTransfer(scheduler::TransferKind kind, int64_t bytes, base::Duration seconds) const;
  void OnTaskFailed(const absl::Status& status) const;
  // Of the media decoders, since the start.
  void OnDecoders(int64_t deaths, int64_t violations) const;
  void OnDroppedEvent() const { dropped_events_.Increment(); }

 private:
  base::Counter TaskFailures(absl::StatusCode code) const;

  base::Registry* registry_;
  scheduler::WorkerProfile profile_;
  base::Gauge queue_cost_[scheduler::kNumStages];
  base::Gauge rate_[scheduler::kNumStages], fixed_[scheduler::kNumStages];
  base::Gauge batch_fill_[scheduler::kNumStages];
  base::Gauge prediction_error_;
  base::Gauge held_requests_, held_kv_blocks_, held_embedding_slots_;
  base::Gauge kv_used_, slots_used_, decoder_deaths_, decoder_violations_;
  base::Counter patches_, prefill_tokens_, decode_tokens_, dropped_events_;
  base::Counter transfer_bytes_[2];
  base::Histogram transfer_seconds_[2];
};

}  // namespace triptych::services
