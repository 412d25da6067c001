#pragma once

// What a gateway counts. Every series is there from the start at 0: a rate cannot see the step that
// a series is born with.

#include <map>

#include "absl/status/status.h"
#include "base/metrics.h"
#include "services/gateway/core/response_sink.h"

namespace triptych::services {

// Thread-safe. Borrows the registry.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(base::Registry* registry);

  // A request that was refused before it reached the core, by its code of errors.h.
  void Refused(const absl::Status& status) const;
  // The end of an accepted request, good or not: why, how long each part of it took, how much.
  void Ended(const AnswerEnd& end) const;
  // An HTTP answer has begun.
  void Answered(int status) const;

  base::Histogram ttft_seconds;
  base::Histogram itl_seconds;
  base::Gauge held_requests;
  base::Gauge held_payload_bytes;
  base::Counter cut_connections;

 private:
  struct Phase {
    int64_t Timeline::*us;
    base::Histogram seconds;
  };

  base::Histogram e2e_seconds_, prompt_tokens_, picture_tokens_, output_tokens_, decode_seconds_;
  std::vector<Phase> phases_;
  std::map<std::string, base::Counter> refusals_, terminals_;
  std::map<int, base::Counter> statuses_;
};

}  // namespace triptych::services
