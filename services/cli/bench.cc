#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/config.h"
#include "base/status.h"
#include "services/cli/commands.h"
#include "services/cli/conversation.h"
#include "services/cli/grpc_load_client.h"
#include "services/cli/http_load_client.h"
#include "services/cli/load_report.h"
#include "services/cli/local_cluster.h"
#include "services/runtime/shutdown.h"

namespace triptych::services {
namespace {

struct BenchOptions {
  std::string server, api, mix, trace, json;
  double rate = 0, ttft_slo_ms = 0, tpot_slo_ms = 0;
  int64_t duration_s = 0, warm_up_s = 0, seed = 0, max_in_flight = 0, channels = 0;
  base::Duration deadline{0};

  void DeclareLoad(base::FlagSet* flags);
  void DeclareMeasure(base::FlagSet* flags);
};

void BenchOptions::DeclareLoad(base::FlagSet* flags) {
  flags->AddString(&server, {.name = "server",
                             .doc = "host:port of the API; empty: with --model a modelled cluster "
                                    "of its own, else the local cluster"});
  flags->AddString(&api, {.name = "api",
                          .doc = "grpc, or http: the OpenAI chat API, of any server",
                          .default_value = "grpc"});
  flags->AddDouble(&rate, {.name = "rate",
                           .doc = "requests per second; 0 with --trace: its own",
                           .default_value = 20,
                           .max = 1e6});
  flags->AddInt(&duration_s, {.name = "duration",
                              .doc = "seconds of arrivals, warm-up included",
                              .default_value = 10,
                              .min = 1,
                              .max = 86'400});
  flags->AddInt(&warm_up_s, {.name = "warm-up",
                             .doc = "first seconds, which do not count",
                             .default_value = 2,
                             .max = 86'400});
  flags->AddString(&mix, {.name = "mix",
                          .doc = "what is asked, see bench/README.md",
                          .default_value = "bench/mixes/mixed.json"});
  flags->AddString(&trace, {.name = "trace",
                            .doc = "CSV of TIMESTAMP,ContextTokens,GeneratedTokens instead of a "
                                   "Poisson process"});
  flags->AddInt(&seed, {.name = "seed", .doc = "of arrivals and mix", .default_value = 1});
}

void BenchOptions::DeclareMeasure(base::FlagSet* flags) {
  flags->AddDouble(
      &ttft_slo_ms,
      {.name = "ttft-slo-ms", .doc = "objective: arrival to first token", .default_value = 1000});
  flags->AddDouble(&tpot_slo_ms, {.name = "tpot-slo-ms",
                                  .doc = "objective: mean time of a later token",
                                  .default_value = 100});
  flags->AddDuration(&deadline, {.name = "deadline",
                                 .doc = "of each request; one that is not answered by then failed",
                                 .default_value = std::chrono::minutes(1),
                                 .min = std::chrono::milliseconds(1),
                                 .max = std::chrono::hours(1)});
  flags->AddInt(&max_in_flight, {.name = "max-in-flight",
                                 .doc = "requests beyond it are not sent",
                                 .default_value = 4096,
                                 .min = 1,
                                 .max = 1 << 16});
  flags->AddInt(&channels, {.name = "channels",
                            .doc = "connections to the gateway",
                            .default_value = 4,
                            .min = 1,
                            .max = 256});
  flags->AddString(&json, {.name = "json", .doc = "file for the report as JSON"});
}

absl::StatusOr<std::vector<Arrival>> MakeArrivals(const BenchOptions& options) {
  const base::Duration duration = std::chrono::seconds(options.duration_s);
  if (options.trace.empty()) {
    if (options.rate <= 0) return absl::InvalidArgumentError("--rate: want more than 0");
    return PoissonArrivals(options.rate, duration, static_cast<uint64_t>(options.seed));
  }
  std::ifstream in(options.trace);
  std::error_code error;
  if (!in || std::filesystem::is_directory(options.trace, error)) {
    return absl::NotFoundError(absl::StrCat("--trace: cannot read ", options.trace));
  }
  const std::string csv((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return TraceArrivals(csv, options.rate, duration);
}

// A run that completed nothing has measured nothing.
absl::Status Verdict(const LoadReport& report) {
  if (report.completed > 0) return absl::OkStatus();
  return absl::AbortedError("no request was completed");
}

absl::Status Publish(const LoadReport& report, const BenchOptions& options) {
  std::fputs(ReportTable(report).c_str(), stdout);
  if (options.json.empty()) return Verdict(report);
  std::ofstream out(options.json, std::ios::trunc);
  out << ReportJson(report) << "\n";
  out.close();
  return out ? Verdict(report) : absl::InternalError("--json: cannot write " + options.json);
}

absl::StatusOr<std::unique_ptr<LoadClient>> ClientOf(const BenchOptions& options,
                                                     const std::string& server) {
  if (options.api == "grpc") {
    return std::make_unique<GrpcLoadClient>(server, static_cast<int>(options.channels),
                                            options.deadline);
  }
  return HttpLoadClient::Connect(server, options.deadline);
}

// The address of the API that --server names, or of the local cluster.
absl::StatusOr<std::string> ServerOf(const BenchOptions& options) {
  if (options.api == "grpc") return ResolveGateway(options.server);
  if (!options.server.empty()) return options.server;
  ASSIGN_OR_RETURN(const ClusterRecord cluster, FindCluster(ClusterRecordFolder(), ""));
  return cluster.http;
}

absl::Status Measure(const BenchOptions& options, const LocalClusterOptions& cluster_options) {
  if (options.warm_up_s >= options.duration_s) {
    return absl::InvalidArgumentError("--warm-up: want less than --duration");
  }
  if (options.api != "grpc" && options.api != "http") {
    return absl::InvalidArgumentError("--api: want grpc or http");
  }
  ASSIGN_OR_RETURN(const RequestMix mix, ReadMix(options.mix));
  ASSIGN_OR_RETURN(const std::vector<Arrival> arrivals, MakeArrivals(options));
  const base::RealClock clock;
  std::optional<LocalCluster> cluster;
  std::string server;
  if (options.server.empty() && !cluster_options.model.empty()) {
    cluster.emplace(cluster_options, OwnBinaryFolder(), clock);
    RETURN_IF_ERROR(cluster->Start(std::chrono::minutes(2), ShutdownRequested));
    server = options.api == "grpc" ? cluster->grpc() : cluster->http();
  } else {
    ASSIGN_OR_RETURN(server, ServerOf(options));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LoadClient> client, ClientOf(options, server));
  LoadGenerator generator({.max_in_flight = static_cast<int>(options.max_in_flight),
                           .seed = static_cast<uint64_t>(options.seed)},
                          *client, clock);
  const std::vector<RequestOutcome> outcomes = generator.Run(arrivals, mix);
  return Publish(
      Summarise(
          outcomes,
          {.ttft_seconds = options.ttft_slo_ms / 1e3, .tpot_seconds = options.tpot_slo_ms / 1e3},
          std::chrono::seconds(options.warm_up_s), std::chrono::seconds(options.duration_s)),
      options);
}

}  // namespace

int RunBench(int argc, const char* const* argv) {
  BenchOptions options;
  LocalClusterOptions cluster;
  base::FlagSet flags("triptych bench [flags]: an open-loop load generator");
  options.DeclareLoad(&flags);
  options.DeclareMeasure(&flags);
  // Its own cluster measures everything but the arithmetic, unless told otherwise.
  cluster.Declare(&flags, "modelled");
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  // Ctrl-C ends this process at once; its children die with it.
  const absl::Status status = Measure(options, cluster);
  if (status.ok()) return 0;
  std::fprintf(stderr, "triptych bench: %s\n", status.ToString().c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace triptych::services
