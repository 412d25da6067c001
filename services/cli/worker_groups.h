#pragma once

// The topology of a local cluster as a person writes it: "encode=1,prefill=1,decode=1", or with
// roles joined in one process: "encode+prefill=1,decode=2". Pure.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

struct WorkerGroup {
  std::string roles;  // as --roles of a worker takes them, in the order of a request's life
  int count = 1;
};

inline constexpr int kMaxWorkersOfGroup = 64;

// INVALID_ARGUMENT for an unknown role, a count outside 1..kMaxWorkersOfGroup, the same roles
// twice, or a stage that no group runs: a cluster without it would never answer.
absl::StatusOr<std::vector<WorkerGroup>> ParseWorkers(absl::string_view text);

}  // namespace triptych::services
