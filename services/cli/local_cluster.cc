#include "services/cli/local_cluster.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/certificates.h"
#include "base/config.h"
#include "base/status.h"
#include "services/cli/cluster_client.h"
#include "services/runtime/http_call.h"

namespace triptych::services {
namespace {

constexpr base::Duration kLookEvery = std::chrono::milliseconds(50);
constexpr base::Duration kCallTimeout = std::chrono::milliseconds(500);
// Stop order.
constexpr int kGatewayRank = 0, kWorkerRank = 1, kSchedulerRank = 2;

void Append(std::vector<std::string>* argv, absl::string_view flags) {
  for (absl::string_view flag : absl::StrSplit(flags, ' ', absl::SkipEmpty())) {
    argv->emplace_back(flag);
  }
}

}  // namespace

void LocalClusterOptions::Declare(base::FlagSet* flags, const std::string& default_device) {
  flags->AddString(&model, {.name = "model", .doc = "directory of the checkpoint"});
  flags->AddString(&workers, {.name = "workers",
                              .doc = "processes by roles; join roles with +",
                              .default_value = "encode=1,prefill=1,decode=1"});
  flags->AddString(&device, {.name = "device",
                             .doc = "what the workers compute on: cpu, cuda:N, or modelled, which "
                                    "computes nothing",
                             .default_value = default_device});
  flags->AddString(&cost, {.name = "cost", .doc = "modelled: file of the cost model"});
  flags->AddInt(&threads, {.name = "threads",
                           .doc = "cpu: threads of each worker; 0: one a core",
                           .default_value = 2,
                           .min = 0,
                           .max = 1024});
  flags->AddInt(&admin_port, {.name = "admin-port",
                              .doc = "first of the processes' admin ports: the scheduler's, then "
                                     "the gateway's, then the workers'; 0: any, kept at restarts",
                              .default_value = 0,
                              .min = 0,
                              .max = 65'000});
  flags->AddBool(&insecure,
                 {.name = "insecure", .doc = "no certificates: plain text between processes"});
  flags->AddString(&log_dir, {.name = "log-dir",
                              .doc = "folder for the processes' logs; empty: a temporary one"});
  flags->AddString(&scheduler_flags, {.name = "scheduler-flags",
                                      .doc = "more flags for the scheduler, separated by spaces"});
  flags->AddString(&worker_flags, {.name = "worker-flags",
                                   .doc = "more flags for every worker, separated by spaces"});
  flags->AddString(&gateway_flags, {.name = "gateway-flags",
                                    .doc = "more flags for the gateway, separated by spaces"});
}

std::string OwnBinaryFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

bool ShutdownRequested() {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
}

LocalCluster::LocalCluster(LocalClusterOptions options, std::string binary_folder,
                           const base::Clock& clock)
    : options_(std::move(options)),
      binary_folder_(std::move(binary_folder)),
      clock_(clock),
      record_path_(ClusterRecordPath(ClusterRecordFolder(), getpid())),
      tls_folder_(record_path_ + ".tls"),
      supervisor_(clock, {},
                  [this](const std::vector<ChildStatus>& children) { WriteRecord(children); }) {}

LocalCluster::~LocalCluster() { Stop(); }

void LocalCluster::Stop() {
  supervisor_.Stop();
  std::error_code error;
  std::filesystem::remove(record_path_, error);
  std::filesystem::remove_all(tls_folder_, error);
  if (remove_logs_) std::filesystem::remove_all(log_folder_, error);
}

std::string LocalCluster::Binary(absl::string_view name) const {
  return absl::StrCat(binary_folder_, "/", name);
}

absl::Status LocalCluster::Start(base::Duration timeout, const std::function<bool()>& interrupted) {
  if (options_.model.empty()) return absl::InvalidArgumentError("--model is required");
  RETURN_IF_ERROR(ParseWorkers(options_.workers).status());
  RETURN_IF_ERROR(MakeLogFolder());
  RETURN_IF_ERROR(MakeCertificates());
  const Wait wait{clock_.Now() + timeout, interrupted};
  RETURN_IF_ERROR(StartScheduler(wait));
  RETURN_IF_ERROR(StartWorkers());
  RETURN_IF_ERROR(StartGateway(wait));
  RETURN_IF_ERROR(WaitReady(wait));
  remove_logs_ = options_.log_dir.empty();
  return absl::OkStatus();
}

absl::Status LocalCluster::MakeLogFolder() {
  log_folder_ = options_.log_dir;
  if (log_folder_.empty()) {
    std::string pattern = "/tmp/triptych-logs-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) return absl::InternalError("cannot make " + pattern);
    log_folder_ = pattern;
    return absl::OkStatus();
  }
  std::error_code error;
  std::filesystem::create_directories(log_folder_, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("--log-dir: ", error.message()));
  return absl::OkStatus();
}

absl::Status LocalCluster::MakeCertificates() {
  if (options_.insecure) return absl::OkStatus();
  RETURN_IF_ERROR(MakeClusterRecordFolder(ClusterRecordFolder()));
  ASSIGN_OR_RETURN(const base::CertificateAuthority authority, base::CertificateAuthority::Make());
  RETURN_IF_ERROR(base::WriteTlsFolder(authority, tls_folder_));
  ASSIGN_OR_RETURN(security_, base::RpcSecurity::FromFiles(
                                  base::TlsFilesIn(tls_folder_, base::Role::kOperator)));
  base::MutexLock lock(&record_mutex_);
  record_.tls = tls_folder_;
  return absl::OkStatus();
}

void LocalCluster::AppendSecurity(base::Role role, std::vector<std::string>* argv) const {
  if (options_.insecure) return argv->push_back("--insecure");
  const base::TlsFiles files = base::TlsFilesIn(tls_folder_, role);
  argv->insert(argv->end(),
               {"--tls-ca=" + files.ca, "--tls-cert=" + files.cert, "--tls-key=" + files.key});
}

absl::Status LocalCluster::StartScheduler(const Wait& wait) {
  std::vector<std::string> argv = {Binary("triptych-scheduler"), "--name=scheduler",
                                   "--admin=" + AdminAt(0),
                                   "--listen=" + options_.scheduler_listen};
  AppendSecurity(base::Role::kScheduler, &argv);
  Append(&argv, options_.scheduler_flags);
  Add("scheduler", "scheduler", argv, kSchedulerRank);
  ASSIGN_OR_RETURN(Addresses addresses, Listening("scheduler", wait));
  scheduler_ = addresses["grpc"];
  KeepPorts("scheduler", argv, addresses, {"grpc", "admin"});
  return absl::OkStatus();
}

absl::Status LocalCluster::StartWorkers() {
  ASSIGN_OR_RETURN(const std::vector<WorkerGroup> groups, ParseWorkers(options_.workers));
  for (const WorkerGroup& group : groups) {
    for (int i = 0; i < group.count; ++i) {
      const std::string name = absl::StrCat(group.roles, "-", i);
      std::vector<std::string> argv = {Binary("triptych-worker"),
                                       "--name=" + name,
                                       "--roles=" + group.roles,
                                       "--scheduler=" + scheduler_,
                                       "--listen=127.0.0.1:0",
                                       "--admin=" + AdminAt(static_cast<int>(workers_.size()) + 2),
                                       "--model=" + options_.model,
                                       "--device=" + options_.device,
                                       absl::StrCat("--threads=", options_.threads),
                                       "--drain-timeout=3s"};
      if (!options_.cost.empty()) argv.push_back("--cost=" + options_.cost);
      AppendSecurity(base::Role::kWorker, &argv);
      Append(&argv, options_.worker_flags);
      Add(name, group.roles, argv, kWorkerRank);
      workers_.push_back({name, std::move(argv)});
    }
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::StartGateway(const Wait& wait) {
  // Clients have 3 s to see their answers' ends.
  std::vector<std::string> argv = {
      Binary("triptych-gateway"),  "--name=gateway",          "--scheduler=" + scheduler_,
      "--model=" + options_.model, "--admin=" + AdminAt(1),   "--internal=127.0.0.1:0",
      "--http=" + options_.http,   "--grpc=" + options_.grpc, "--drain-timeout=3s"};
  AppendSecurity(base::Role::kGateway, &argv);
  Append(&argv, options_.gateway_flags);
  Add("gateway", "gateway", argv, kGatewayRank);
  ASSIGN_OR_RETURN(Addresses addresses, Listening("gateway", wait));
  http_ = addresses["http"];
  grpc_ = addresses["grpc"];
  gateway_admin_ = addresses["admin"];
  KeepPorts("gateway", argv, addresses, {"http", "grpc", "admin"});
  return absl::OkStatus();
}

absl::Status LocalCluster::WaitReady(const Wait& wait) {
  for (const Worker& worker : workers_) {
    ASSIGN_OR_RETURN(const Addresses addresses, Listening(worker.name, wait));
    KeepPorts(worker.name, worker.argv, addresses, {"admin"});
  }
  while (true) {
    const absl::Status serves = Serves();
    if (serves.ok()) break;
    RETURN_IF_ERROR(Continue(wait));
    if (clock_.Now() >= wait.until) {
      return absl::DeadlineExceededError(absl::StrCat("not ready: ", serves.message()));
    }
    supervisor_.WaitForChange(kLookEvery);
  }
  WriteRecord(supervisor_.Snapshot());
  return absl::OkStatus();
}

absl::Status LocalCluster::Serves() {
  ASSIGN_OR_RETURN(const HttpReply reply, HttpGet(gateway_admin_, "/readyz", kCallTimeout));
  if (reply.status != 200) return absl::UnavailableError("the gateway is not ready");
  ASSIGN_OR_RETURN(const v1::ClusterSnapshot snapshot,
                   FetchSnapshot(scheduler_, security_, kCallTimeout));
  if (snapshot.recovering()) return absl::UnavailableError("the scheduler waits for its peers");
  std::set<std::string> ready;
  for (const v1::ProcessState& process : snapshot.processes()) {
    if (process.state() == "ready") ready.insert(process.name());
  }
  for (const Worker& worker : workers_) {
    if (ready.count(worker.name) == 0) return absl::UnavailableError(worker.name + " is not ready");
  }
  return absl::OkStatus();
}

absl::StatusOr<Addresses> LocalCluster::Listening(const std::string& name, const Wait& wait) {
  while (true) {
    absl::StatusOr<Addresses> addresses = supervisor_.WaitListening(name, kLookEvery);
    if (addresses.status().code() != absl::StatusCode::kDeadlineExceeded) return addresses;
    RETURN_IF_ERROR(Continue(wait));
    if (clock_.Now() >= wait.until) {
      return absl::DeadlineExceededError(
          absl::StrCat(name, " does not listen; its log is in ", log_folder_));
    }
  }
}

absl::Status LocalCluster::Continue(const Wait& wait) const {
  if (wait.interrupted && wait.interrupted()) return absl::CancelledError("interrupted");
  return absl::OkStatus();
}

std::string LocalCluster::AdminAt(int index) const {
  return absl::StrCat("127.0.0.1:", options_.admin_port == 0 ? 0 : options_.admin_port + index);
}

// The last of two flags of one name counts.
void LocalCluster::KeepPorts(const std::string& name, const std::vector<std::string>& argv,
                             const Addresses& addresses, const std::vector<std::string>& keys) {
  std::vector<std::string> again = argv;
  for (const std::string& key : keys) {
    const auto found = addresses.find(key);
    if (found == addresses.end()) continue;
    const bool listen = name == "scheduler" && key == "grpc";
    again.push_back(absl::StrCat("--", listen ? "listen" : key, "=", found->second));
  }
  supervisor_.SetCommand(name, std::move(again));
}

void LocalCluster::Add(const std::string& name, const std::string& roles,
                       std::vector<std::string> argv, int stop_rank) {
  supervisor_.Add({.name = name,
                   .roles = roles,
                   .command = {std::move(argv), absl::StrCat(log_folder_, "/", name, ".log")},
                   .stop_rank = stop_rank});
}

void LocalCluster::WriteRecord(const std::vector<ChildStatus>& children) {
  base::MutexLock lock(&record_mutex_);
  record_.supervisor_pid = getpid();
  record_.processes.clear();
  for (const ChildStatus& child : children) {
    const auto address = [&child](const char* key) {
      const auto found = child.addresses.find(key);
      return found == child.addresses.end() ? std::string() : found->second;
    };
    if (child.roles == "scheduler") record_.scheduler = address("grpc");
    if (child.roles == "gateway") {
      record_.http = address("http");
      record_.grpc = address("grpc");
    }
    record_.processes.push_back({.name = child.name,
                                 .roles = child.roles,
                                 .pid = child.pid,
                                 .admin = address("admin"),
                                 .state = std::string(ToString(child.state)),
                                 .restarts = child.restarts,
                                 .log = child.log_path});
  }
  // Others only read it for convenience; the cluster runs without it.
  WriteClusterRecord(record_path_, record_).IgnoreError();
}

}  // namespace triptych::services
