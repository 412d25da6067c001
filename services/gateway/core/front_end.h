#pragma once

// What both front ends need of the gateway: everything is borrowed and thread-safe.

#include <cstdint>
#include <functional>
#include <string>

#include "services/gateway/core/gateway_core.h"
#include "services/gateway/core/gateway_metrics.h"
#include "services/gateway/request/intake.h"
#include "services/gateway/request/payload_budget.h"

namespace triptych::services {

struct FrontEnd {
  const Intake& intake;
  GatewayCore& core;
  PayloadBudget& budget;
  GatewayMetrics& metrics;
  std::function<bool()> ready;
  std::function<int64_t()> unix_seconds;  // the wall clock, for what clients read
  int64_t serves_since = 0;               // by that clock
  int64_t max_body_bytes = int64_t{64} << 20;
  // A client that has taken nothing of what is written to it for as long as this is cut off.
  base::Duration write_stall = std::chrono::seconds(30);
};

// The name of a request whose client gave none.
inline std::string DrawClientId(scheduler::RequestId id) {
  return "chatcmpl-" + scheduler::ToString(id);
}

// Fills in what the client left open: its name for the request, and the seed.
inline void CompleteRequest(scheduler::RequestId id, ParsedRequest* parsed) {
  if (parsed->client_id.empty()) parsed->client_id = DrawClientId(id);
  if (!parsed->seed_given) parsed->input.sampling.seed = id.gateway.value() ^ id.number;
}

}  // namespace triptych::services
