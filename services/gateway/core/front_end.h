#pragma once

// What both front ends need of the gateway: everything is borrowed and thread-safe.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/log.h"
#include "base/random.h"
#include "base/tls_server.h"
#include "services/gateway/core/api_keys.h"
#include "services/gateway/core/client.h"
#include "services/gateway/core/connection_table.h"
#include "services/gateway/core/gateway_core.h"
#include "services/gateway/core/gateway_metrics.h"
#include "services/gateway/core/parse_pool.h"
#include "services/gateway/request/intake.h"
#include "services/gateway/request/payload_budget.h"
#include "services/gateway/trace/trace_context.h"

namespace triptych::services {

struct FrontEnd {
  const Intake& intake;
  GatewayCore& core;
  PayloadBudget& budget;
  ApiKeys& keys;
  ParsePool& parsers;
  GatewayMetrics& metrics;
  base::Logger* log;
  const Tracer& tracer;
  std::function<bool()> ready;
  // Who is behind a connection that gRPC names so; empty: as ClientOfPeer.
  std::function<Client(const std::string& peer)> client_of;
  std::function<int64_t()> unix_seconds;  // the wall clock, for what clients read
  int64_t serves_since = 0;               // by that clock
  int64_t max_body_bytes = int64_t{64} << 20;
  ConnectionLimits connections;  // of each port
  // How the ports speak TLS; null: in plain text.
  base::TlsServer* http_tls = nullptr;
  base::TlsServer* grpc_tls = nullptr;
  // A client that has taken nothing of what is written to it for as long as this is cut off.
  base::Duration write_stall = std::chrono::seconds(30);
  // The page of metrics for clients; null: they get none.
  std::function<std::string()> client_metrics;
  // Whose pages may read answers, as browsers name them; "*" for any.
  std::vector<std::string> allowed_origins;

  bool AllowsOrigin(absl::string_view origin) const {
    return !origin.empty() && std::any_of(allowed_origins.begin(), allowed_origins.end(),
                                          [&](const std::string& allowed) {
                                            return allowed == "*" || origin == allowed;
                                          });
  }
};

// The name of a request whose client gave none: nobody can guess one, nor name one that will be
// drawn.
inline std::string DrawClientId() {
  return absl::StrCat("chatcmpl-", absl::Hex(base::RandomBits64(), absl::kZeroPad16),
                      absl::Hex(base::RandomBits64(), absl::kZeroPad16));
}

// Fills in what the client left open: its name for the request, and the seed, which no name tells.
inline void CompleteRequest(ParsedRequest* parsed) {
  if (parsed->client_id.empty()) parsed->client_id = DrawClientId();
  if (!parsed->seed_given) parsed->input.sampling.seed = base::RandomBits64();
}

}  // namespace triptych::services
