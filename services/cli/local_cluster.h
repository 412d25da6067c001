#pragma once

// A whole cluster of real processes on this machine: one scheduler, one gateway, and workers, under
// a Supervisor. Keeps the cluster's record. One thread, but for Stop().

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/rpc_security.h"
#include "services/cli/cluster_record.h"
#include "services/cli/supervisor.h"
#include "services/cli/worker_groups.h"

namespace triptych::base {
class FlagSet;
}

namespace triptych::services {

struct LocalClusterOptions {
  std::string model;
  std::string workers = "encode=1,prefill=1,decode=1";
  std::string http = "127.0.0.1:0";
  std::string grpc = "127.0.0.1:0";
  std::string scheduler_listen = "127.0.0.1:0";
  std::string device = "cpu";
  std::string cost;
  int64_t threads = 2;
  int64_t admin_port = 0;  // of the scheduler, the gateway and the workers in turn; 0: any
  bool insecure = false;   // no certificates, plain text between the processes
  std::string log_dir;     // empty: a temporary one, removed at a clean end
  // More flags for the processes, separated by spaces.
  std::string scheduler_flags, worker_flags, gateway_flags;

  // Declares all but the addresses, whose defaults differ from command to command.
  void Declare(base::FlagSet* flags, const std::string& default_device = "cpu");
};

class LocalCluster {
 public:
  // Borrows `clock`. The binaries are those in `binary_folder`.
  LocalCluster(LocalClusterOptions options, std::string binary_folder, const base::Clock& clock);
  // Stop().
  ~LocalCluster();

  // Blocks until a request would be served, at most `timeout`; asks `interrupted` 20 times a second
  // whether to give up (CANCELLED). INVALID_ARGUMENT for wrong options, UNAVAILABLE when a process
  // ended at its start (with the path of its log), DEADLINE_EXCEEDED.
  absl::Status Start(base::Duration timeout, const std::function<bool()>& interrupted);
  // Ends every process, gateway first; within 11 s.
  void Stop();

  // host:port each; empty before Start.
  const std::string& http() const { return http_; }
  const std::string& grpc() const { return grpc_; }
  const std::string& scheduler() const { return scheduler_; }
  // A person's, at its scheduler.
  const base::RpcSecurity& security() const { return security_; }

 private:
  struct Wait {
    base::TimePoint until;
    const std::function<bool()>& interrupted;
  };
  absl::Status MakeLogFolder();
  // An authority that lives as long as this function, and what it signs.
  absl::Status MakeCertificates();
  void AppendSecurity(base::Role role, std::vector<std::string>* argv) const;
  absl::Status StartScheduler(const Wait& wait);
  absl::Status StartWorkers();
  absl::Status StartGateway(const Wait& wait);
  absl::Status WaitReady(const Wait& wait);
  absl::Status Serves();
  absl::StatusOr<Addresses> Listening(const std::string& name, const Wait& wait);
  absl::Status Continue(const Wait& wait) const;
  // The address of the admin port number `index`.
  std::string AdminAt(int index) const;
  // What a process is started with again: at the ports that it has.
  void KeepPorts(const std::string& name, const std::vector<std::string>& argv,
                 const Addresses& addresses, const std::vector<std::string>& keys);
  void Add(const std::string& name, const std::string& roles, std::vector<std::string> argv,
           int stop_rank);
  std::string Binary(absl::string_view name) const;
  void WriteRecord(const std::vector<ChildStatus>& children);

  const LocalClusterOptions options_;
  const std::string binary_folder_;
  const base::Clock& clock_;
  const std::string record_path_;
  const std::string tls_folder_;
  base::RpcSecurity security_ = base::RpcSecurity::None();
  std::string log_folder_;
  bool remove_logs_ = false;
  struct Worker {
    std::string name;
    std::vector<std::string> argv;
  };
  std::vector<Worker> workers_;
  std::string http_, grpc_, scheduler_, gateway_admin_;
  base::Mutex record_mutex_;
  ClusterRecord record_ ABSL_GUARDED_BY(record_mutex_);
  Supervisor supervisor_;  // last: its thread calls WriteRecord
};

// The folder of the running binary.
std::string OwnBinaryFolder();
// True when SIGTERM or SIGINT is pending; both must be blocked.
bool ShutdownRequested();

}  // namespace triptych::services
