#pragma once

// How the latest requests ended, for people who look for one of them afterwards. Not a log and not
// a measure: what is older than the last kCapacity is gone. Thread-safe.

#include <cstddef>
#include <deque>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "services/gateway/core/response_sink.h"
#include "services/gateway/trace/trace_context.h"

namespace triptych::services {

struct EndedRequest {
  std::string request_id;  // as workers and the scheduler know it
  std::string client_id;   // of the answer
  std::string tag;         // the client's own name for it, which several may share
  std::string result;      // "stop", "length", or an error's code
  Usage usage;
  Timeline timeline;
  TraceContext trace;
};

class EndedRequests {
 public:
  static constexpr size_t kCapacity = 1000;

  void Put(EndedRequest request);
  // The latest of this name, whichever of the three it is.
  std::optional<EndedRequest> Find(absl::string_view name) const;

 private:
  mutable base::Mutex mutex_;
  std::deque<EndedRequest> requests_ ABSL_GUARDED_BY(mutex_);  // the oldest first
};

// One JSON object, with a newline.
std::string ToJson(const EndedRequest& request);

}  // namespace triptych::services
