#pragma once

// A channel in plain text to a server that a test started so.

#include <memory>
#include <string>

#include "base/rpc.h"

namespace triptych::testing {

inline std::shared_ptr<grpc::Channel> PlainChannel(const std::string& address) {
  return base::Connect(address, base::RpcSecurity::None(), base::Role::kScheduler);
}

}  // namespace triptych::testing
