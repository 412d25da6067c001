#pragma once

// Sends requests at their scheduled times whatever the answers do, and measures them. Latencies
// count from the scheduled time, so a server (or this process) that falls behind cannot hide it.
// One thread sends; answers come on the client's threads; no thread a request.

#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "services/cli/arrivals.h"
#include "services/cli/load_client.h"
#include "services/cli/request_mix.h"

namespace triptych::services {

// Times in seconds after the scheduled arrival.
struct RequestOutcome {
  absl::Status status = absl::UnknownError("no end was heard of");
  base::Duration scheduled{0};  // after the start of the run
  double sent = 0;              // how late the request left
  double first_token = 0;       // 0: none came
  double last_token = 0;
  double end = 0;
  int tokens = 0;
  std::vector<float> gaps;  // seconds between two parts that carried tokens
  bool with_picture = false;
};

struct LoadOptions {
  int max_in_flight = 4096;  // a request beyond it is not sent and counts as RESOURCE_EXHAUSTED
  uint64_t seed = 1;         // of the draws from the mix
};

class LoadGenerator {
 public:
  // Borrows both.
  LoadGenerator(LoadOptions options, LoadClient& client, const base::Clock& clock)
      : options_(options), client_(client), clock_(clock) {}

  // Blocks until every request has ended; one outcome an arrival, in their order.
  std::vector<RequestOutcome> Run(const std::vector<Arrival>& arrivals, const RequestMix& mix);

 private:
  class Call;
  bool WaitUntil(base::TimePoint when);
  void OnEnded(size_t index, RequestOutcome outcome);

  const LoadOptions options_;
  LoadClient& client_;
  const base::Clock& clock_;
  base::Mutex mutex_;
  base::CondVar changed_;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<RequestOutcome> outcomes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
