#pragma once

// What a supervisor tells other commands of its cluster, in a small JSON file that it keeps up to
// date and removes at its end: so that `ask`, `chat` and `status` need no flags. One file a
// supervisor, named by its pid. Hints for people, never the truth: the scheduler's snapshot is.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

struct ProcessRecord {
  std::string name;
  std::string roles;  // "gateway", "scheduler", "encode+prefill", ...
  int64_t pid = 0;    // 0 while it does not run
  std::string admin;  // host:port
  std::string state;
  int64_t restarts = 0;
  std::string log;  // path
};

struct ClusterRecord {
  int64_t supervisor_pid = 0;
  std::string http;  // host:port, as the two below
  std::string grpc;
  std::string scheduler;
  std::string tls;  // folder of its certificates, see base/certificates.h; empty: it has none
  std::vector<ProcessRecord> processes;
};

// $XDG_RUNTIME_DIR/triptych, or /tmp/triptych-UID without it.
std::string ClusterRecordFolder();
// The file of the supervisor with this pid.
std::string ClusterRecordPath(absl::string_view folder, int64_t supervisor_pid);
// Makes the folder of the records, for this user alone. PERMISSION_DENIED when it is another's.
absl::Status MakeClusterRecordFolder(const std::string& folder);

// Replaces the file in one step and makes its folder, readable by this user alone. INTERNAL names
// the path.
absl::Status WriteClusterRecord(const std::string& path, const ClusterRecord& record);
// NOT_FOUND, or INVALID_ARGUMENT for a file that is not a record.
absl::StatusOr<ClusterRecord> ReadClusterRecord(const std::string& path);

// The record that names `server` as one of its three addresses; with an empty `server` the only one
// there is. Records of supervisors that no longer live are passed over. NOT_FOUND;
// FAILED_PRECONDITION, with their addresses, where there are several to choose from.
absl::StatusOr<ClusterRecord> FindCluster(const std::string& folder, absl::string_view server);

}  // namespace triptych::services
