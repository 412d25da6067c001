#include "services/scheduler/scheduler_process.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/config.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/status.h"
#include "base/version.h"
#include "services/runtime/admin_server.h"
#include "services/runtime/build_info.h"
#include "services/runtime/descriptors.h"
#include "services/runtime/method_callers.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/security_options.h"
#include "services/runtime/self_probe.h"
#include "services/runtime/shutdown.h"
#include "services/scheduler/scheduler_service.h"

namespace triptych::services {
namespace {

struct SchedulerOptions {
  std::string name, listen, admin, log_level;
  std::string as_given;  // the flags, for the log
  scheduler::ClusterConfig cluster;
  SecurityOptions security;

  void Declare(base::FlagSet* flags) {
    flags->AddString(&name,
                     {.name = "name", .doc = "of this process", .default_value = "scheduler"});
    flags->AddString(&listen, {.name = "listen",
                               .doc = "host:port of the control streams",
                               .default_value = "127.0.0.1:7000"});
    flags->AddString(&admin, {.name = "admin",
                              .doc = "host:port of /metrics, /healthz, /readyz",
                              .default_value = "127.0.0.1:0"});
    flags->AddChoice(
        &log_level,
        {.name = "log-level", .doc = "least that is logged", .choices = base::LogLevelNames()});
    flags->AddInt(&cluster.queue.requests, {.name = "max-queued-requests",
                                            .doc = "beyond it requests are refused",
                                            .default_value = cluster.queue.requests,
                                            .min = 1,
                                            .max = 1 << 20});
    flags->AddDuration(&cluster.silent_after,
                       {.name = "silent-after",
                        .doc = "a worker or gateway that says nothing for so long is lost",
                        .default_value = cluster.silent_after,
                        .min = std::chrono::milliseconds(500),
                        .max = std::chrono::hours(1)});
    flags->AddDuration(&cluster.reconnect_grace,
                       {.name = "reconnect-grace",
                        .doc = "one whose control stream breaks is lost unless it is back by then",
                        .default_value = cluster.reconnect_grace,
                        .max = std::chrono::hours(1)});
    flags->AddDuration(&cluster.role_grace,
                       {.name = "role-grace",
                        .doc = "how long requests wait for a role that no worker has",
                        .default_value = cluster.role_grace,
                        .max = std::chrono::hours(1)});
    security.Declare(flags);
  }
};

absl::Status Serve(const SchedulerOptions& options) {
  ASSIGN_OR_RETURN(const base::RpcSecurity security, options.security.Open({options.listen}));
  base::RealClock clock;
  base::StreamLogger log(clock, options.name, base::LogLevelOf(options.log_level));
  base::Registry registry;
  DescribeBuild("scheduler", "", &registry);
  SchedulerMetrics metrics(&registry);
  SchedulerCore core(options.cluster, scheduler::Incarnation(base::RandomBits64()), clock, log,
                     metrics);
  SchedulerService control(&core, &log);
  ClusterService cluster(&core, {options.name, "", getpid()});
  SelfProbe probe(clock);
  ASSIGN_OR_RETURN(
      auto admin,
      AdminServer::Start(options.admin, {[&] { return registry.Serialize(); }, [] { return true; },
                                         [&] { return !core.recovering() && probe.answers(); }}));
  cluster.set_admin(admin->address());
  ASSIGN_OR_RETURN(auto server,
                   RpcServer::Start(options.listen, base::RpcAudience::kInternal,
                                    security.Server(CallersOfMethod), {&control, &cluster}));
  probe.Start({{server->address(), security.ChannelTo(base::Role::kScheduler)}});
  server->SetServing(true);
  std::printf("listening grpc=%s admin=%s\n", server->address().c_str(), admin->address().c_str());
  std::fflush(stdout);
  log.Info("serving", {},
           {{"version", base::kVersion},
            {"addresses", absl::StrCat("grpc=", server->address(), " admin=", admin->address())},
            {"flags", options.as_given}});
  WaitForShutdownSignal();
  log.Info("stopping");
  core.Stop();
  server->Stop(std::chrono::milliseconds(200));
  return absl::OkStatus();
}

}  // namespace

int RunScheduler(int argc, char** argv) {
  BlockShutdownSignals();
  RaiseDescriptorLimit();
  SchedulerOptions options;
  base::FlagSet flags("triptych-scheduler [flags]: places every request on the cluster's workers");
  options.Declare(&flags);
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  options.as_given = absl::StrJoin(argv + 1, argv + argc, " ");
  const absl::Status status = Serve(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "triptych-scheduler: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace triptych::services
