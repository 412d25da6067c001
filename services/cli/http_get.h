#pragma once

// One blocking HTTP/1.1 GET to a process of ours: admin pages and nothing else. No TLS, no
// redirects, no chunked bodies. Thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services {

struct HttpReply {
  int status = 0;
  std::string body;
};

// `address` is host:port. UNAVAILABLE when nobody answers within `timeout` for each step (connect,
// each read), INTERNAL for an answer that is not HTTP.
absl::StatusOr<HttpReply> HttpGet(const std::string& address, absl::string_view path,
                                  base::Duration timeout);

}  // namespace triptych::services
