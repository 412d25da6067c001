#pragma once

// The admin port of every process: /metrics for Prometheus, /healthz (the process lives), /readyz
// (it can serve). Not for clients. One thread of its own.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

struct AdminPages {
  // Called on the admin thread; thread-safe and quick.
  std::function<std::string()> metrics;
  std::function<bool()> alive;
  std::function<bool()> ready;
  // The JSON at any other path; nothing: 404. May be empty.
  std::function<std::optional<std::string>(absl::string_view path)> other = {};
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
