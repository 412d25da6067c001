#pragma once

// One blocking HTTP/1.1 exchange with a process of ours or beside us. No TLS, no redirects.
// Thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services {

struct HttpReply {
  int status = 0;
  std::string body;
};

struct HostPort {
  std::string host;  // without brackets
  std::string port;
};

// `host:port`, `[::1]:port`, and either behind `http://`, as people copy it. INVALID_ARGUMENT for
// anything else.
absl::StatusOr<HostPort> SplitAddress(absl::string_view address);

// `address` as SplitAddress(). UNAVAILABLE, with the reason, when there is no whole answer within
// `timeout`.
absl::StatusOr<HttpReply> HttpGet(const std::string& address, absl::string_view path,
                                  base::Duration timeout);
// The same with a body of JSON.
absl::StatusOr<HttpReply> HttpPostJson(const std::string& address, absl::string_view path,
                                       std::string json, base::Duration timeout);

}  // namespace triptych::services
