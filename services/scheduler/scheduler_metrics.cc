#include "services/scheduler/scheduler_metrics.h"

namespace triptych::services {
namespace {

constexpr const char* kStates[] = {"queued",       "prefilling", "awaiting_decode",
                                   "handing_over", "decoding",   "finishing"};

void Raise(const base::Counter& counter, int64_t before, int64_t now) {
  if (now > before) counter.Increment(static_cast<double>(now - before));
}

}  // namespace

SchedulerMetrics::SchedulerMetrics(base::Registry* registry) : registry_(registry) {
  const base::MetricSpec queue{"triptych_queue_cost",
                               "Waiting work: patches, prompt tokens or sequences."};
  queued_prefill_ = registry->GetGauge(queue, {{"stage", "prefill"}});
  queued_patches_ = registry->GetGauge(queue, {{"stage", "encode"}});
  held_requests_ = registry->GetGauge({"triptych_held_requests", "Live requests; 0 at rest."});
  for (int i = 0; i < 6; ++i) {
    requests_[i] = registry->GetGauge({"triptych_requests", "Live requests by state."},
                                      {{"state", kStates[i]}});
  }
  for (int i = 0; i < scheduler::kNumStages; ++i) {
    queue_age_[i] = registry->GetGauge(
        {"triptych_queue_age_seconds", "Since the oldest request that waits was admitted."},
        {{"stage", ToString(static_cast<scheduler::Stage>(i))}});
    const base::MetricSpec workers{"triptych_workers", "Workers that the scheduler knows."};
    const std::string stage = ToString(static_cast<scheduler::Stage>(i));
    serving_[i] = registry->GetGauge(workers, {{"stage", stage}, {"state", "serving"}});
    draining_[i] = registry->GetGauge(workers, {{"stage", stage}, {"state", "draining"}});
  }
  admitted_ = registry->GetCounter({"triptych_admitted_total", "Requests admitted."});
  restarts_ = registry->GetCounter(
      {"triptych_request_restarts_total", "Requests started again after a loss."});
  workers_lost_ = registry->GetCounter({"triptych_workers_lost_total", "Workers lost."});
  streams_lost_ = registry->GetCounter(
      {"triptych_control_streams_lost_total", "Control streams of living peers that broke."});
  cut_offs_ = registry->GetCounter(
      {"triptych_cut_offs_total", "Times that most peers went missing at once."});
  dropped_events_ =
      registry->GetCounter({"triptych_dropped_events_total", "Events that found the queue full."});
}

void SchedulerMetrics::OnSnapshot(const scheduler::ClusterSnapshot& snapshot) {
  const scheduler::RequestCounts& requests = snapshot.requests;
  const int64_t counts[] = {requests.queued,       requests.prefilling, requests.awaiting_decode,
                            requests.handing_over, requests.decoding,   requests.finishing};
  int64_t held = 0;
  for (int i = 0; i < 6; ++i) {
    requests_[i].Set(static_cast<double>(counts[i]));
    held += counts[i];
  }
  held_requests_.Set(static_cast<double>(held));
  for (int i = 0; i < scheduler::kNumStages; ++i) {
    int serving = 0, draining = 0;
    for (const scheduler::WorkerSnapshot& worker : snapshot.workers) {
      if (!worker.profile.roles.has(static_cast<scheduler::Stage>(i))) continue;
      ++(worker.draining ? draining : serving);
    }
    serving_[i].Set(serving);
    draining_[i].Set(draining);
    queue_age_[i].Set(base::ToSeconds(snapshot.oldest_wait[i]));
  }
  queued_prefill_.Set(static_cast<double>(snapshot.queued_prefill_tokens));
  queued_patches_.Set(static_cast<double>(snapshot.queued_patches));
  Raise(admitted_, last_.admitted, snapshot.admitted);
  Raise(restarts_, last_.restarts, snapshot.restarts);
  Raise(workers_lost_, last_.workers_lost, snapshot.workers_lost);
  Raise(streams_lost_, last_.streams_lost, snapshot.streams_lost);
  Raise(cut_offs_, last_.cut_offs, snapshot.cut_offs);
  last_ = snapshot;
}

}  // namespace triptych::services
