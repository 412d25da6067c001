#pragma once

// What a gateway counts.

#include "absl/status/status.h"
#include "base/metrics.h"

namespace triptych::services {

// Thread-safe. Borrows the registry.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(base::Registry* registry);

  // A request that was refused before it reached the core, by its code of errors.h.
  void Refused(const absl::Status& status);
  // The end of an accepted request: "stop", "length" or an error's code.
  void Ended(const char* reason);

  base::Histogram ttft_seconds;
  base::Histogram itl_seconds;
  base::Histogram e2e_seconds;
  base::Gauge held_requests;
  base::Gauge held_payload_bytes;
  base::Counter stop_terminals;
  base::Counter length_terminals;

 private:
  base::Registry* registry_;
};

}  // namespace triptych::services
