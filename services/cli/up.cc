#include <cstdio>
#include <string>

#include "base/config.h"
#include "services/cli/commands.h"
#include "services/cli/local_cluster.h"
#include "services/runtime/shutdown.h"

namespace triptych::services {
namespace {

void DeclareAddresses(LocalClusterOptions* options, base::FlagSet* flags) {
  flags->AddString(
      &options->http,
      {.name = "http", .doc = "host:port of the OpenAI API", .default_value = "127.0.0.1:8080"});
  flags->AddString(
      &options->grpc,
      {.name = "grpc", .doc = "host:port of the gRPC API", .default_value = "127.0.0.1:8081"});
  flags->AddString(&options->scheduler_listen, {.name = "scheduler-listen",
                                                .doc = "host:port of the scheduler",
                                                .default_value = "127.0.0.1:0"});
}

}  // namespace

int RunUp(int argc, const char* const* argv) {
  BlockShutdownSignals();
  LocalClusterOptions options;
  base::Duration start_timeout;
  base::FlagSet flags("triptych up [flags]: a local cluster of real processes, until Ctrl-C");
  options.Declare(&flags);
  DeclareAddresses(&options, &flags);
  flags.AddDuration(&start_timeout, {.name = "start-timeout",
                                     .doc = "how long the start may take",
                                     .default_value = std::chrono::minutes(2)});
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  const base::RealClock clock;
  LocalCluster cluster(options, OwnBinaryFolder(), clock);
  const absl::Status started = cluster.Start(start_timeout, ShutdownRequested);
  if (!started.ok()) {
    std::fprintf(stderr, "triptych up: %s\n", std::string(started.message()).c_str());
    return started.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
  }
  std::printf("ready http=%s grpc=%s scheduler=%s\n", cluster.http().c_str(),
              cluster.grpc().c_str(), cluster.scheduler().c_str());
  std::fflush(stdout);
  WaitForShutdownSignal();
  cluster.Stop();
  return 0;
}

}  // namespace triptych::services
