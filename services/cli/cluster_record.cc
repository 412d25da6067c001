#include "services/cli/cluster_record.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace triptych::services {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const ProcessRecord& process) {
  return {{"name", process.name},   {"roles", process.roles}, {"pid", process.pid},
          {"admin", process.admin}, {"state", process.state}, {"restarts", process.restarts},
          {"log", process.log}};
}

ProcessRecord ProcessFromJson(const Json& json) {
  return {.name = json.value("name", ""),
          .roles = json.value("roles", ""),
          .pid = json.value("pid", int64_t{0}),
          .admin = json.value("admin", ""),
          .state = json.value("state", ""),
          .restarts = json.value("restarts", int64_t{0}),
          .log = json.value("log", "")};
}

ClusterRecord ClusterFromJson(const Json& json) {
  ClusterRecord record{.supervisor_pid = json.value("supervisor_pid", int64_t{0}),
                       .http = json.value("http", ""),
                       .grpc = json.value("grpc", ""),
                       .scheduler = json.value("scheduler", ""),
                       .tls = json.value("tls", "")};
  for (const Json& process : json.value("processes", Json::array())) {
    record.processes.push_back(ProcessFromJson(process));
  }
  return record;
}

bool Lives(int64_t pid) {
  return pid > 0 && (kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM);
}

bool Names(const ClusterRecord& record, absl::string_view server) {
  return server.empty() || server == record.http || server == record.grpc ||
         server == record.scheduler;
}

}  // namespace

std::string ClusterRecordFolder() {
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') return absl::StrCat(runtime, "/triptych");
  return absl::StrCat("/tmp/triptych-", getuid());
}

std::string ClusterRecordPath(absl::string_view folder, int64_t supervisor_pid) {
  return absl::StrCat(folder, "/cluster-", supervisor_pid, ".json");
}

absl::Status MakeClusterRecordFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // In /tmp anybody could have made it first.
  struct stat found;
  if (lstat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != getuid() ||
      chmod(folder.c_str(), 0700) != 0) {
    return absl::PermissionDeniedError(folder + " is not a folder of this user");
  }
  return absl::OkStatus();
}

absl::Status WriteClusterRecord(const std::string& path, const ClusterRecord& record) {
  RETURN_IF_ERROR(MakeClusterRecordFolder(std::filesystem::path(path).parent_path()));
  Json json = {{"supervisor_pid", record.supervisor_pid},
               {"http", record.http},
               {"grpc", record.grpc},
               {"scheduler", record.scheduler},
               {"tls", record.tls},
               {"processes", Json::array()}};
  for (const ProcessRecord& process : record.processes) {
    json["processes"].push_back(ToJson(process));
  }
  const std::string temporary = path + ".new";
  std::ofstream out(temporary, std::ios::trunc);
  out << json.dump(1) << "\n";
  out.close();
  if (!out || rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::InternalError(absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<ClusterRecord> ReadClusterRecord(const std::string& path) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(path);
  const Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError(path + " is not a cluster's record");
  try {
    return ClusterFromJson(json);
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", e.what()));
  }
}

absl::StatusOr<ClusterRecord> FindCluster(const std::string& folder, absl::string_view server) {
  std::vector<ClusterRecord> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".json") continue;
    absl::StatusOr<ClusterRecord> record = ReadClusterRecord(entry.path().string());
    if (!record.ok() || !Lives(record->supervisor_pid) || !Names(*record, server)) continue;
    found.push_back(*std::move(record));
  }
  if (found.size() == 1) return std::move(found.front());
  if (found.empty()) {
    return absl::NotFoundError(
        server.empty() ? "no local cluster runs; start one with `triptych up`, or give --server"
                       : absl::StrCat("no local cluster has the address ", server));
  }
  std::vector<std::string> names;
  for (const ClusterRecord& record : found) {
    names.push_back(record.grpc.empty()
                        ? absl::StrCat("one that starts, pid ", record.supervisor_pid)
                        : record.grpc);
  }
  std::sort(names.begin(), names.end());
  return absl::FailedPreconditionError(
      absl::StrCat("several local clusters run; say which by "
                   "--server: ",
                   absl::StrJoin(names, ", ")));
}

}  // namespace triptych::services
