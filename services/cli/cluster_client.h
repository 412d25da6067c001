#pragma once

// Asks a scheduler for its view of the cluster. Thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/rpc_security.h"
#include "triptych/v1/cluster.pb.h"

namespace triptych::services {

// One call on a new channel, as an operator. The call's code: UNAVAILABLE when nobody answers in
// time, UNIMPLEMENTED when `address` (host:port) is not a scheduler's.
absl::StatusOr<v1::ClusterSnapshot> FetchSnapshot(const std::string& address,
                                                  const base::RpcSecurity& security,
                                                  base::Duration timeout);

}  // namespace triptych::services
