#include "tests/integration/cluster_fixture.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/cli/cluster_client.h"
#include "services/cli/supervisor.h"
#include "services/runtime/http_call.h"

namespace triptych::testing {
namespace {

constexpr char kModel[] = "assets/triptych-16m";
constexpr char kExamples[] = "assets/examples";
constexpr char kDevelopment[] = "../shared/dev";

Question FromJson(const nlohmann::json& json, const std::string& folder, const std::string& name) {
  Question question{.name = name, .expected = json.at("answer")};
  if (json.contains("reference_text")) question.expected = json.at("reference_text");
  v1::Message* message = question.request.add_messages();
  message->set_role("user");
  v1::Video video;
  for (const std::string& file : json.value("files", std::vector<std::string>())) {
    std::string bytes = ReadFile(absl::StrCat(folder, "/", file));
    v1::Image* image =
        json.at("kind") == "video" ? video.add_frames() : message->add_content()->mutable_image();
    image->set_data(std::move(bytes));
  }
  if (video.frames_size() > 0) {
    video.set_fps(json.value("fps", 2.0));
    *message->add_content()->mutable_video() = std::move(video);
  }
  message->add_content()->set_text(json.at("question").get<std::string>());
  return question;
}

std::string MakeLogFolder() {
  std::string pattern = "/tmp/triptych-integration-XXXXXX";
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  return pattern;
}

std::vector<std::string> UpCommand(const std::string& workers, const std::string& log_dir,
                                   const std::vector<std::string>& more) {
  std::vector<std::string> argv = {TriptychBinary(),
                                   "up",
                                   absl::StrCat("--model=", kModel),
                                   "--workers=" + workers,
                                   "--http=127.0.0.1:0",
                                   "--grpc=127.0.0.1:0",
                                   "--threads=1",
                                   "--log-dir=" + log_dir};
  argv.insert(argv.end(), more.begin(), more.end());
  return argv;
}

// Name -> value of the metrics without labels; empty when the process cannot be asked.
std::map<std::string, double> MetricsOf(const services::ProcessRecord& process) {
  std::map<std::string, double> metrics;
  const auto reply = services::HttpGet(process.admin, "/metrics", std::chrono::seconds(1));
  if (!reply.ok()) return metrics;
  for (absl::string_view line : absl::StrSplit(reply->body, '\n')) {
    double value = 0;
    const size_t space = line.rfind(' ');
    if (space == absl::string_view::npos || line[0] == '#') continue;
    if (!absl::SimpleAtod(line.substr(space + 1), &value)) continue;
    metrics[std::string(line.substr(0, space))] = value;
  }
  return metrics;
}

// Name of the process -> sum of its metrics that begin with triptych_held_.
std::map<std::string, double> HeldByProcess(const services::ClusterRecord& record,
                                            const std::string& except) {
  std::map<std::string, double> held;
  for (const services::ProcessRecord& process : record.processes) {
    if (process.name == except) continue;
    const std::map<std::string, double> metrics = MetricsOf(process);
    // One that cannot be asked may hold anything.
    held[process.name] = metrics.empty() ? 1e9 : 0;
    for (const auto& [name, value] : metrics) {
      if (name.rfind("triptych_held_", 0) == 0) held[process.name] += value;
    }
  }
  return held;
}

}  // namespace

std::string TriptychBinary() {
  const char* path = getenv("TRIPTYCH_BINARY");
  return path != nullptr ? path : "build/bin/triptych";
}

std::string ReadFile(const std::string& path) {
  INFO(path);
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.is_open());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<Question> ExampleQuestions() {
  const auto json = nlohmann::json::parse(ReadFile(absl::StrCat(kExamples, "/questions.json")));
  std::vector<Question> questions;
  for (const auto& item : json) questions.push_back(FromJson(item, kExamples, item.at("name")));
  return questions;
}

std::vector<Question> DevelopmentQuestions(size_t limit) {
  std::vector<Question> questions;
  std::ifstream in(absl::StrCat(kDevelopment, "/questions.jsonl"));
  std::string line;
  while (questions.size() < limit && std::getline(in, line)) {
    const auto json = nlohmann::json::parse(line);
    questions.push_back(
        FromJson(json, kDevelopment, absl::StrCat("dev ", json.at("id").get<int>())));
  }
  return questions;
}

std::vector<Question> LongQuestions(size_t count, int tokens) {
  std::vector<Question> questions;
  for (size_t i = 0; i < count; ++i) {
    Question question{.name = absl::StrCat("long ", i)};
    v1::Message* message = question.request.add_messages();
    message->set_role("user");
    message->add_content()->set_text(absl::StrCat("Tell story number ", i, "."));
    question.request.set_max_tokens(tokens);
    // Sampled, so that the texts differ and end late; the same seed draws the same.
    question.request.mutable_sampling()->set_temperature(1.5f);
    question.request.mutable_sampling()->set_top_p(1);
    question.request.mutable_sampling()->set_top_logprobs(-1);
    question.request.mutable_sampling()->set_seed(i + 1);
    questions.push_back(std::move(question));
  }
  return questions;
}

Cluster::Cluster(const std::string& workers, std::vector<std::string> more_flags)
    : log_dir_(MakeLogFolder()),
      process_(UpCommand(workers, log_dir_, more_flags), log_dir_ + "/up.log") {
  const std::string line = process_.WaitForLine("ready ", std::chrono::minutes(2));
  auto addresses = services::ParseListeningLine(absl::StrCat("listening ", line.substr(6)));
  REQUIRE(addresses.has_value());
  http_ = (*addresses)["http"];
  grpc_ = (*addresses)["grpc"];
  scheduler_ = (*addresses)["scheduler"];
}

Cluster::~Cluster() {
  process_.Terminate(std::chrono::seconds(15));
  if (std::uncaught_exceptions() > 0 || !Catch::getResultCapture().lastAssertionPassed()) {
    std::fprintf(stderr, "the logs are in %s\n", log_dir_.c_str());
    return;
  }
  std::error_code error;
  std::filesystem::remove_all(log_dir_, error);
}

services::ClusterRecord Cluster::Record() const {
  auto record = services::FindCluster(services::ClusterRecordFolder(), grpc_);
  INFO(record.status().ToString());
  REQUIRE(record.ok());
  return *std::move(record);
}

void Cluster::Signal(const std::string& name, int signal_number) const {
  for (const services::ProcessRecord& process : Record().processes) {
    if (process.name != name) continue;
    REQUIRE(process.pid > 0);
    REQUIRE(kill(static_cast<pid_t>(process.pid), signal_number) == 0);
    return;
  }
  FAIL("no process " << name);
}

bool Cluster::WaitRestarted(const std::string& name, int64_t restarts) const {
  return Eventually(std::chrono::seconds(30), [&] {
    // While the gateway is down the record has no addresses to be found by.
    const auto record = services::ReadClusterRecord(
        services::ClusterRecordPath(services::ClusterRecordFolder(), process_.pid()));
    if (!record.ok()) return false;
    return std::any_of(record->processes.begin(), record->processes.end(), [&](const auto& p) {
      return p.name == name && p.restarts >= restarts && p.state == "ready";
    });
  });
}

base::RpcSecurity Cluster::SecurityAs(base::Role role) const {
  // While the gateway is down the record has no addresses to be found by.
  const auto record = services::ReadClusterRecord(
      services::ClusterRecordPath(services::ClusterRecordFolder(), process_.pid()));
  REQUIRE(record.ok());
  if (record->tls.empty()) return base::RpcSecurity::None();
  auto security = base::RpcSecurity::FromFiles(base::TlsFilesIn(record->tls, role));
  INFO(security.status().ToString());
  REQUIRE(security.ok());
  return *std::move(security);
}

int Cluster::TasksOf(const std::string& name) const {
  const auto snapshot = services::FetchSnapshot(scheduler_, SecurityAs(base::Role::kOperator),
                                                std::chrono::seconds(1));
  if (!snapshot.ok()) return -1;
  for (const v1::ProcessState& process : snapshot->processes()) {
    if (process.name() == name) return process.tasks();
  }
  return -1;
}

int64_t Cluster::QueuedRequests() const {
  const auto snapshot = services::FetchSnapshot(scheduler_, SecurityAs(base::Role::kOperator),
                                                std::chrono::seconds(1));
  return snapshot.ok() ? snapshot->queued_requests() : 0;
}

double Cluster::MetricOf(const std::string& name, const std::string& metric) const {
  for (const services::ProcessRecord& process : Record().processes) {
    if (process.name != name) continue;
    for (const auto& [key, value] : MetricsOf(process)) {
      if (key == metric) return value;
    }
  }
  return -1;
}

double Cluster::HeldResources(const std::string& except) const {
  double total = 0;
  for (const auto& [name, held] : HeldByProcess(Record(), except)) total += held;
  return total;
}

bool Cluster::WaitFreed(base::Duration timeout, const std::string& except) const {
  // Processes bring their gauges up to date 4 times a second at least, so that a single look may
  // show what was before.
  constexpr base::Duration kGaugesAreOlder = std::chrono::milliseconds(300);
  const base::RealClock clock;
  base::TimePoint free_since = base::kNever;
  return Eventually(timeout + kGaugesAreOlder, [&] {
    const base::TimePoint now = clock.Now();
    free_since = HeldResources(except) == 0 ? std::min(free_since, now) : base::kNever;
    return free_since != base::kNever && now - free_since >= kGaugesAreOlder;
  });
}

std::string Cluster::HeldResourcesByName() const {
  std::string text;
  for (const auto& [name, held] : HeldByProcess(Record(), "")) {
    absl::StrAppend(&text, name, "=", held, " ");
  }
  return text;
}

Stopped::Stopped(const Cluster& cluster, std::string name)
    : cluster_(cluster), name_(std::move(name)) {
  cluster_.Signal(name_, SIGSTOP);
}

Stopped::~Stopped() { cluster_.Signal(name_, SIGCONT); }

}  // namespace triptych::testing
