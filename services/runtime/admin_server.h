#pragma once

// The admin port of every process: /metrics for Prometheus, /healthz (the process lives), /readyz
// (it can serve). Not for clients. One thread of its own.

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace triptych::services {

struct AdminPages {
  // Called on the admin thread; thread-safe and quick.
  std::function<std::string()> metrics;
  std::function<bool()> alive;
  std::function<bool()> ready;
};

class AdminServer {
 public:
  // Errors as Listen().
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const std::string& address,
                                                            AdminPages pages);
  ~AdminServer();

  const std::string& address() const { return address_; }

 private:
  class Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace triptych::services
