#pragma once

// HTTP/1.1 for OpenAI clients; http_target.h lists the addresses.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/gateway/core/front_end.h"
#include "services/gateway/http/http_timeouts.h"

namespace triptych::services {

// Two threads of its own.
class HttpServer {
 public:
  // `front` is borrowed. Errors as Listen().
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
