#pragma once

// HTTP/1.1 for OpenAI clients: POST /v1/chat/completions, GET /v1/models, /healthz, /readyz.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/gateway/core/front_end.h"
#include "services/gateway/http/http_timeouts.h"

namespace triptych::services {

// Two threads of its own.
class HttpServer {
 public:
  // `front` is borrowed. INVALID_ARGUMENT when `address` is no IP address and port, UNAVAILABLE
  // when the address (host:port, port 0 for a free one) cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           const FrontEnd& front,
                                                           const HttpTimeouts& timeouts = {});
  // Closes all connections.
  ~HttpServer();

  const std::string& address() const { return address_; }

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace triptych::services
