#include "services/gateway/core/gateway_metrics.h"

#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

// Powers of two up to the longest contexts of today's models.
std::vector<double> TokenBuckets() {
  std::vector<double> bounds;
  for (double bound = 1; bound <= 1 << 18; bound *= 2) bounds.push_back(bound);
  return bounds;
}

}  // namespace

GatewayMetrics::GatewayMetrics(base::Registry* registry) {
  ttft_seconds = registry->GetHistogram({"triptych_ttft_seconds", "Accepted to first token."});
  itl_seconds = registry->GetHistogram({"triptych_itl_seconds", "Between two tokens."});
  e2e_seconds_ = registry->GetHistogram({"triptych_e2e_seconds", "Accepted to the end, if good."});
  prompt_tokens_ = registry->GetHistogram(
      {"triptych_prompt_tokens", "Length of prompts, pictures included."}, {}, TokenBuckets());
  picture_tokens_ = registry->GetHistogram(
      {"triptych_picture_tokens", "Visual tokens of prompts that have any."}, {}, TokenBuckets());
  output_tokens_ = registry->GetHistogram({"triptych_output_tokens", "Length of good answers."}, {},
                                          TokenBuckets());
  held_requests = registry->GetGauge({"triptych_held_requests", "Live requests."});
  held_payload_bytes =
      registry->GetGauge({"triptych_held_payload_bytes", "Bodies and media held in memory."});
  cut_connections = registry->GetCounter(
      {"triptych_cut_connections_total", "gRPC connections closed for what they sent."});
  const base::MetricSpec phase{"triptych_phase_seconds", "Parts of a request's time."};
  const auto histogram = [&](const char* name) {
    return registry->GetHistogram(phase, {{"phase", name}});
  };
  phases_ = {{&Timeline::queue_us, histogram("queue")},
             {&Timeline::media_decode_us, histogram("media")},
             {&Timeline::encode_us, histogram("encode")},
             {&Timeline::embedding_transfer_us, histogram("embedding_transfer")},
             {&Timeline::prefill_us, histogram("prefill")},
             {&Timeline::kv_transfer_us, histogram("kv_transfer")}};
  decode_seconds_ = histogram("decode");
  const base::MetricSpec terminals{"triptych_terminals_total", "Accepted requests that ended."};
  const base::MetricSpec refusals{"triptych_refusals_total", "Requests refused before work."};
  const base::MetricSpec answers{"triptych_http_responses_total", "HTTP answers by status."};
  std::vector<const char*> reasons = ClientErrorCodes();
  for (const char* code : reasons) {
    refusals_[code] = registry->GetCounter(refusals, {{"reason", code}});
  }
  reasons.insert(reasons.end(), {"stop", "length"});
  for (const char* reason : reasons) {
    terminals_[reason] = registry->GetCounter(terminals, {{"reason", reason}});
  }
  for (const int status : HttpStatuses()) {
    statuses_[status] = registry->GetCounter(answers, {{"status", absl::StrCat(status)}});
  }
}

void GatewayMetrics::Refused(const absl::Status& status) const {
  refusals_.at(ToClientError(status).code).Increment();
}

void GatewayMetrics::Answered(int status) const {
  const auto found = statuses_.find(status);
  if (found != statuses_.end()) found->second.Increment();
}

void GatewayMetrics::Ended(const AnswerEnd& end) const {
  for (const Phase& phase : phases_) {
    if (const int64_t us = end.timeline.*phase.us; us > 0) {
      phase.seconds.Observe(static_cast<double>(us) * 1e-6);
    }
  }
  prompt_tokens_.Observe(end.usage.prompt_tokens);
  if (end.usage.picture_tokens > 0) picture_tokens_.Observe(end.usage.picture_tokens);
  if (!end.status.ok()) return terminals_.at(ToClientError(end.status).code).Increment();
  const Timeline& timeline = end.timeline;
  if (timeline.first_token_us > 0) {
    decode_seconds_.Observe(static_cast<double>(timeline.total_us - timeline.first_token_us) *
                            1e-6);
  }
  e2e_seconds_.Observe(static_cast<double>(timeline.total_us) * 1e-6);
  output_tokens_.Observe(end.usage.output_tokens);
  terminals_.at(end.finish == scheduler::Finish::kLength ? "length" : "stop").Increment();
}

}  // namespace triptych::services
