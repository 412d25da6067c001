#pragma once

// Which role may call which method on the ports between processes: one table, and what is not in it
// nobody may call.

#include "absl/strings/string_view.h"
#include "base/rpc_security.h"

namespace triptych::services {

// `method` as on the wire: "/triptych.v1.Cluster/Drain".
base::RoleSet CallersOfMethod(absl::string_view method);

}  // namespace triptych::services
