#include "services/worker/worker_metrics.h"

#include <algorithm>

namespace triptych::services {
namespace {

using scheduler::Stage;

constexpr Stage kStages[] = {Stage::kEncode, Stage::kPrefill, Stage::kDecode};
constexpr const char* kKinds[] = {"embedding", "kv"};

}  // namespace

WorkerMetrics::WorkerMetrics(base::Registry* registry, const scheduler::WorkerProfile& profile)
    : registry_(registry), profile_(profile) {
  for (Stage stage : kStages) {
    if (!profile.roles.has(stage)) continue;
    const base::Labels labels{{"stage", ToString(stage)}};
    const int i = static_cast<int>(stage);
    queue_cost_[i] = registry->GetGauge(
        {"triptych_queue_cost", "Waiting work: patches, prompt tokens or sequences."}, labels);
    rate_[i] = registry->GetGauge(
        {"triptych_stage_seconds_per_unit", "Learned time of one more unit in a step."}, labels);
    fixed_[i] = registry->GetGauge(
        {"triptych_stage_fixed_seconds", "Learned time of a step with nothing in it."}, labels);
    batch_fill_[i] = registry->GetGauge(
        {"triptych_batch_fill", "Rows or items of the last step over the most it may have."},
        labels);
  }
  prediction_error_ = registry->GetGauge(
      {"triptych_step_prediction_error", "Of a step's time, relative, of late."});
  held_requests_ = registry->GetGauge({"triptych_held_requests", "Live tasks; 0 at rest."});
  held_kv_blocks_ = registry->GetGauge({"triptych_held_kv_blocks", "KV blocks in use; 0 at rest."});
  held_embedding_slots_ =
      registry->GetGauge({"triptych_held_embedding_slots", "Embedding slots in use; 0 at rest."});
  const base::MetricSpec used{"triptych_pool_used", "Entries of a pool in use."};
  const base::MetricSpec size{"triptych_pool_size", "Entries of a pool."};
  kv_used_ = registry->GetGauge(used, {{"pool", "kv_blocks"}});
  slots_used_ = registry->GetGauge(used, {{"pool", "embedding_slots"}});
  registry->GetGauge(size, {{"pool", "kv_blocks"}}).Set(profile.kv_blocks);
  registry->GetGauge(size, {{"pool", "embedding_slots"}}).Set(profile.embedding_slots);
  decoder_deaths_ = registry->GetGauge(
      {"triptych_decoder_deaths", "Media decoders that died before their time, since the start."});
  decoder_violations_ = registry->GetGauge(
      {"triptych_decoder_violations", "Of these, killed for a system call that none makes."});
  patches_ = registry->GetCounter({"triptych_encode_patches_total", "Patches encoded."});
  prefill_tokens_ = registry->GetCounter({"triptych_prefill_tokens_total", "Prompt tokens run."});
  decode_tokens_ = registry->GetCounter({"triptych_decode_tokens_total", "Tokens decoded."});
  dropped_events_ = registry->GetCounter(
      {"triptych_dropped_events_total", "Events that found the worker's queue full."});
  // From the start, so that a rate sees the first one. OUT_OF_RANGE and its like are no task's end.
  for (const absl::StatusCode code :
       {absl::StatusCode::kAborted, absl::StatusCode::kCancelled, absl::StatusCode::kInternal,
        absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
        absl::StatusCode::kFailedPrecondition, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded}) {
    TaskFailures(code);
  }
  for (int kind = 0; kind < 2; ++kind) {
    transfer_bytes_[kind] =
        registry->GetCounter({"triptych_transfer_bytes_total", "Bytes received from workers."},
                             {{"kind", kKinds[kind]}});
    transfer_seconds_[kind] =
        registry->GetHistogram({"triptych_transfer_seconds", "Time of a piece, posted to landed."},
                               {{"kind", kKinds[kind]}});
  }
}

void WorkerMetrics::OnDecoders(int64_t deaths, int64_t violations) const {
  decoder_deaths_.Set(static_cast<double>(deaths));
  decoder_violations_.Set(static_cast<double>(violations));
}

void WorkerMetrics::OnLoad(const scheduler::WorkerReport& report,
                           const scheduler::StageStats& stats) const {
  for (int i = 0; i < scheduler::kNumStages; ++i) {
    queue_cost_[i].Set(static_cast<double>(report.load[i].queued_cost));
    rate_[i].Set(report.load[i].seconds_per_unit);
    fixed_[i].Set(report.load[i].fixed_seconds);
  }
  prediction_error_.Set(report.prediction_error);
  held_requests_.Set(stats.tasks);
  held_kv_blocks_.Set(stats.kv_blocks);
  held_embedding_slots_.Set(stats.embedding_slots);
  kv_used_.Set(stats.kv_blocks);
  slots_used_.Set(stats.embedding_slots);
}

void WorkerMetrics::OnSubmit(const scheduler::StepPlan& plan, int max_batch) const {
  int64_t prefill_tokens = 0, decode_rows = 0;
  for (const auto& row : plan.rows) {
    if (row.token_ids.size() > 1 || !row.sample) {
      prefill_tokens += static_cast<int64_t>(row.token_ids.size());
    } else {
      ++decode_rows;
    }
  }
  int64_t patches = 0;
  for (const auto& encode : plan.encodes) patches += encode.grid.patches();
  patches_.Increment(static_cast<double>(patches));
  prefill_tokens_.Increment(static_cast<double>(prefill_tokens));
  decode_tokens_.Increment(static_cast<double>(decode_rows));
  if (!plan.rows.empty()) {
    const double fill = static_cast<double>(plan.rows.size()) / max_batch;
    batch_fill_[static_cast<int>(decode_rows > 0 ? Stage::kDecode : Stage::kPrefill)].Set(fill);
  }
  if (!plan.encodes.empty()) {
    batch_fill_[static_cast<int>(Stage::kEncode)].Set(static_cast<double>(plan.encodes.size()) /
                                                      std::max(profile_.max_encodes, 1));
  }
}

void WorkerMetrics::OnTransfer(scheduler::TransferKind kind, int64_t bytes,
                               base::Duration seconds) const {
  const int i = static_cast<int>(kind);
  transfer_bytes_[i].Increment(static_cast<double>(bytes));
  transfer_seconds_[i].Observe(base::ToSeconds(seconds));
}

base::Counter WorkerMetrics::TaskFailures(absl::StatusCode code) const {
  return registry_->GetCounter({"triptych_task_failures_total", "Tasks that could not go on here."},
                               {{"reason", absl::StatusCodeToString(code)}});
}

void WorkerMetrics::OnTaskFailed(const absl::Status& status) const {
  TaskFailures(status.code()).Increment();
}

}  // namespace triptych::services
