#include "base/status.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/config.h"
#include "services/cli/cluster_client.h"
#include "services/cli/cluster_record.h"
#include "services/cli/commands.h"
#include "services/runtime/http_call.h"
#include "services/runtime/security_options.h"
#include "services/runtime/shutdown.h"

namespace triptych::services {
namespace {

constexpr base::Duration kCallTimeout = std::chrono::seconds(2);
constexpr base::Duration kWatchEvery = std::chrono::seconds(2);
// Each worker is asked for its paths, one after another.
constexpr base::Duration kMetricsTimeout = std::chrono::milliseconds(300);

// How bytes from or to another worker pass.
struct TransferPath {
  std::string peer, direction, path;
};

// A process as the scheduler sees it, the supervisor, or both.
struct Row {
  ProcessRecord record;
  std::optional<v1::ProcessState> seen;  // by the scheduler
  std::vector<TransferPath> paths;
};

struct View {
  ClusterRecord cluster;  // of a local cluster; without processes, else with the scheduler alone
  std::vector<Row> rows;
  v1::ClusterSnapshot snapshot;
  std::string note;  // why the scheduler's view is missing; empty: it is there
};

// The paths in use, out of a worker's metrics; none when it does not answer.
std::vector<TransferPath> PathsOf(const std::string& admin) {
  std::vector<TransferPath> paths;
  const absl::StatusOr<HttpReply> reply = HttpGet(admin, "/metrics", kMetricsTimeout);
  if (!reply.ok() || reply->status != 200) return paths;
  const auto label = [](absl::string_view line, absl::string_view name) {
    const std::string start = absl::StrCat(name, "=\"");
    const size_t begin = line.find(start);
    if (begin == absl::string_view::npos) return std::string();
    line.remove_prefix(begin + start.size());
    return std::string(line.substr(0, line.find('"')));
  };
  for (const absl::string_view line : absl::StrSplit(reply->body, '\n')) {
    if (!absl::StartsWith(line, "triptych_transfer_path{") || !absl::EndsWith(line, " 1")) continue;
    paths.push_back({label(line, "peer"), label(line, "direction"), label(line, "path")});
  }
  return paths;
}

void Merge(const v1::ProcessState& seen, std::vector<Row>* rows) {
  const auto same = [&seen](const Row& row) { return row.record.name == seen.name(); };
  auto row = std::find_if(rows->begin(), rows->end(), same);
  if (row == rows->end()) {
    rows->push_back({{.name = seen.name(), .roles = seen.roles()}, std::nullopt});
    row = rows->end() - 1;
  }
  // The supervisor alone knows that a process is down; all else the scheduler knows better.
  const bool down = row->record.pid == 0 && !row->record.state.empty();
  const bool replaced = row->record.pid != 0 && row->record.pid != seen.pid();
  if (down || replaced) return;
  row->seen = seen;
  row->record.pid = seen.pid();
  row->record.admin = seen.admin();
  row->record.state = seen.state();
}

// As the flags say; a local cluster's own without them.
absl::StatusOr<base::RpcSecurity> SecurityTo(const absl::StatusOr<ClusterRecord>& cluster,
                                             const SecurityOptions& given) {
  if (!given.empty() || !cluster.ok()) return given.Open({});
  if (cluster->tls.empty()) return base::RpcSecurity::None();
  return base::RpcSecurity::FromFiles(base::TlsFilesIn(cluster->tls, base::Role::kOperator));
}

absl::StatusOr<View> Look(const std::string& server, const SecurityOptions& given) {
  View view;
  std::string scheduler = server;
  const absl::StatusOr<ClusterRecord> cluster = FindCluster(ClusterRecordFolder(), server);
  if (cluster.ok()) {
    view.cluster = *cluster;
    scheduler = cluster->scheduler;
    for (const ProcessRecord& process : cluster->processes) {
      view.rows.push_back({process, std::nullopt});
    }
  } else if (server.empty()) {
    return cluster.status();
  }
  view.cluster.scheduler = scheduler;
  ASSIGN_OR_RETURN(const base::RpcSecurity security, SecurityTo(cluster, given));
  absl::StatusOr<v1::ClusterSnapshot> snapshot = FetchSnapshot(scheduler, security, kCallTimeout);
  if (!snapshot.ok() && !cluster.ok()) {
    return absl::Status(
        snapshot.status().code(),
        absl::StrCat(server, " does not answer as a scheduler: ", snapshot.status().message()));
  }
  if (snapshot.ok()) {
    for (const v1::ProcessState& process : snapshot->processes()) Merge(process, &view.rows);
    view.snapshot = *std::move(snapshot);
  } else {
    view.note = absl::StrCat("the scheduler does not answer: ", snapshot.status().message());
  }
  for (Row& row : view.rows) {
    const bool worker = row.record.roles != "scheduler" && row.record.roles != "gateway";
    if (worker && row.seen.has_value()) row.paths = PathsOf(row.record.admin);
  }
  return view;
}

std::string ViewJson(const View& view) {
  nlohmann::ordered_json processes = nlohmann::ordered_json::array();
  for (const Row& row : view.rows) {
    nlohmann::ordered_json process = {
        {"name", row.record.name},   {"roles", row.record.roles},
        {"pid", row.record.pid},     {"admin", row.record.admin},
        {"state", row.record.state}, {"restarts", row.record.restarts}};
    if (row.seen.has_value()) {
      process["tasks"] = row.seen->tasks();
      process["free_kv_blocks"] = row.seen->free_kv_blocks();
      process["kv_blocks"] = row.seen->kv_blocks();
      process["free_embedding_slots"] = row.seen->free_embedding_slots();
      process["embedding_slots"] = row.seen->embedding_slots();
    }
    for (const TransferPath& path : row.paths) {
      process["paths"].push_back(
          {{"peer", path.peer}, {"direction", path.direction}, {"path", path.path}});
    }
    processes.push_back(std::move(process));
  }
  const nlohmann::ordered_json json = {{"cluster",
                                        {{"http", view.cluster.http},
                                         {"grpc", view.cluster.grpc},
                                         {"scheduler", view.cluster.scheduler},
                                         {"supervisor_pid", view.cluster.supervisor_pid}}},
                                       {"processes", std::move(processes)},
                                       {"recovering", view.snapshot.recovering()},
                                       {"queued_requests", view.snapshot.queued_requests()},
                                       {"running_requests", view.snapshot.running_requests()},
                                       {"scheduler_answers", view.note.empty()}};
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Named(const char* name, const std::string& address) {
  return address.empty() ? "" : absl::StrCat(" ", name, "=", address);
}

std::string ViewTable(const View& view) {
  std::string out =
      absl::StrCat("cluster", Named("http", view.cluster.http), Named("grpc", view.cluster.grpc),
                   Named("scheduler", view.cluster.scheduler), "\n");
  absl::StrAppendFormat(&out, "%-24s %-22s %8s %-11s %8s %6s %13s %15s  %s\n", "NAME", "ROLES",
                        "PID", "STATE", "RESTARTS", "TASKS", "KV FREE", "SLOTS FREE", "ADMIN");
  for (const Row& row : view.rows) {
    std::string tasks = "-", kv = "-", slots = "-";
    if (row.seen.has_value() && row.record.roles != "scheduler") {
      tasks = absl::StrCat(row.seen->tasks());
      if (row.seen->kv_blocks() > 0) {
        kv = absl::StrCat(row.seen->free_kv_blocks(), "/", row.seen->kv_blocks());
        slots = absl::StrCat(row.seen->free_embedding_slots(), "/", row.seen->embedding_slots());
      }
    }
    absl::StrAppendFormat(&out, "%-24s %-22s %8d %-11s %8d %6s %13s %15s  %s\n", row.record.name,
                          row.record.roles, row.record.pid, row.record.state, row.record.restarts,
                          tasks, kv, slots, row.record.admin);
  }
  for (const Row& row : view.rows) {
    for (const TransferPath& path : row.paths) {
      if (path.direction != "in") continue;  // the other end shows it too
      absl::StrAppend(&out, row.record.name, " takes from ", path.peer, " by ", path.path, "\n");
    }
  }
  absl::StrAppend(&out, view.snapshot.queued_requests(), " requests queued, ",
                  view.snapshot.running_requests(), " running");
  if (!view.note.empty()) absl::StrAppend(&out, "\n", view.note);
  return out;
}

}  // namespace

int RunStatus(int argc, const char* const* argv) {
  std::string server;
  bool json = false, watch = false;
  base::FlagSet flags("triptych status [flags]: the processes of a cluster");
  flags.AddString(&server, {.name = "server",
                            .doc = "host:port of a scheduler, or of the gateway of a local "
                                   "cluster; empty: the local cluster"});
  flags.AddBool(&json, {.name = "json", .doc = "for programs"});
  flags.AddBool(&watch, {.name = "watch", .doc = "again every 2 s, until Ctrl-C"});
  SecurityOptions security;
  security.Declare(&flags);
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  if (watch) BlockShutdownSignals();
  do {
    const absl::StatusOr<View> view = Look(server, security);
    if (!view.ok()) {
      std::fprintf(stderr, "triptych status: %s\n", view.status().ToString().c_str());
      return 1;
    }
    // A terminal shows the newest alone; a pipe gets them all.
    if (watch && isatty(STDOUT_FILENO) == 1) std::fputs("\x1b[H\x1b[2J", stdout);
    std::printf("%s\n", (json ? ViewJson(*view) : ViewTable(*view)).c_str());
    std::fflush(stdout);
  } while (watch && !WaitForShutdownSignal(kWatchEvery));
  return 0;
}

}  // namespace triptych::services
