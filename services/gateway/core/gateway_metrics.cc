#include "services/gateway/core/gateway_metrics.h"

#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

const base::MetricSpec kTerminals = {"triptych_terminals_total", "Accepted requests that ended."};
const base::MetricSpec kRefusals = {"triptych_refusals_total", "Requests refused before work."};

}  // namespace

GatewayMetrics::GatewayMetrics(base::Registry* registry) : registry_(registry) {
  ttft_seconds = registry->GetHistogram({"triptych_ttft_seconds", "Accepted to first token."});
  itl_seconds = registry->GetHistogram({"triptych_itl_seconds", "Between two tokens."});
  e2e_seconds = registry->GetHistogram({"triptych_e2e_seconds", "Accepted to the end, if good."});
  held_requests = registry->GetGauge({"triptych_held_requests", "Live requests."});
  held_payload_bytes =
      registry->GetGauge({"triptych_held_payload_bytes", "Bodies and media held in memory."});
  stop_terminals = registry->GetCounter(kTerminals, {{"reason", "stop"}});
  length_terminals = registry->GetCounter(kTerminals, {{"reason", "length"}});
}

void GatewayMetrics::Refused(const absl::Status& status) {
  registry_->GetCounter(kRefusals, {{"reason", ToClientError(status).code}}).Increment();
}

void GatewayMetrics::Ended(const char* reason) {
  registry_->GetCounter(kTerminals, {{"reason", reason}}).Increment();
}

}  // namespace triptych::services
