#pragma once

// The flags by which a process learns who it is to the others: certificates, or --insecure.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/config.h"
#include "base/rpc_security.h"

namespace triptych::services {

struct SecurityOptions {
  std::string ca, cert, key;
  bool insecure = false;

  void Declare(base::FlagSet* flags);
  // `listen` are the addresses (host:port) that would be plain. INVALID_ARGUMENT: neither all three
  // files nor --insecure, both, a file that does not serve, or --insecure where somebody beyond
  // loopback could connect.
  absl::StatusOr<base::RpcSecurity> Open(const std::vector<std::string>& listen) const;
  bool empty() const { return ca.empty() && cert.empty() && key.empty() && !insecure; }
};

// host:port or unix:PATH that only this machine reaches.
bool IsLoopback(const std::string& address);

}  // namespace triptych::services
