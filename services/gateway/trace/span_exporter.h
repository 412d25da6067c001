#pragma once

// Sends what requests did to a collector, as OTLP/HTTP in JSON. Nobody waits for it: what the queue
// has no room for, and what the collector does not take at once, is lost and counted. One thread of
// its own.

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "services/gateway/trace/spans.h"

namespace triptych::services {

class SpanExporter {
 public:
  // Requests, at about 2 KiB each.
  static constexpr size_t kQueueCapacity = 2048;
  static constexpr size_t kMostAtOnce = 128;

  struct Counters {
    base::Counter sent, lost;  // requests
  };
  static Counters CountersIn(base::Registry* registry);

  // `endpoint`: http://host:port, behind which /v1/traces is meant, or with another path.
  // INVALID_ARGUMENT. `random` draws numbers that are not 0; called on the exporter's thread.
  // Borrows the clock.
  static absl::StatusOr<std::unique_ptr<SpanExporter>> Start(absl::string_view endpoint,
                                                             const base::Clock& clock,
                                                             std::function<uint64_t()> random,
                                                             Counters counters);
  // Tries once to send what is queued, for at most two seconds.
  ~SpanExporter();

  // Thread-safe; does not block.
  void Put(TracedRequest request);

 private:
  struct Target {
    std::string address, path;
  };
  SpanExporter(Target target, const base::Clock& clock, std::function<uint64_t()> random,
               Counters counters);
  void Run();
  void Send(absl::Span<const TracedRequest> requests);

  const Target target_;
  const base::Clock& clock_;
  const std::function<uint64_t()> random_;
  const Counters counters_;
  base::BoundedQueue<TracedRequest> queue_{kQueueCapacity};
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
