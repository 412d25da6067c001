// Defends what `triptych up` promises to those who start it from a program: the line that says it
// is ready, the shape of its status, the topologies that it serves, and an end that leaves nothing.

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"

namespace triptych::testing {
namespace {

constexpr base::Duration kPatience = std::chrono::minutes(1);

bool Lives(int64_t pid) { return kill(static_cast<pid_t>(pid), 0) == 0; }

// What a subcommand says of the cluster; requires that it succeeds.
std::string OutputOf(const Cluster& cluster, const std::string& subcommand) {
  const std::string path = absl::StrCat("/tmp/triptych-output-", cluster.Record().supervisor_pid);
  const std::string command =
      absl::StrCat(TriptychBinary(), " ", subcommand, " --server=", cluster.grpc(), " > ", path);
  REQUIRE(system(command.c_str()) == 0);
  const std::string text = ReadFile(path);
  REQUIRE(unlink(path.c_str()) == 0);
  return text;
}

nlohmann::json StatusOf(const Cluster& cluster) {
  return nlohmann::json::parse(OutputOf(cluster, "status --json"));
}

nlohmann::json ProcessOf(const nlohmann::json& status, const std::string& name) {
  for (const nlohmann::json& process : status.at("processes")) {
    if (process.at("name") == name) return process;
  }
  return {};
}

TEST_CASE("Up: each topology gets ready, as its status says, and serves", "[integration][serial]") {
  const std::vector<std::pair<std::string, std::set<std::string>>> topologies = {
      {"encode+prefill=1,decode=2", {"encode+prefill-0", "decode-0", "decode-1"}},
      {"encode+prefill+decode=1", {"encode+prefill+decode-0"}}};
  for (const auto& [workers, names] : topologies) {
    INFO(workers);
    // Its stdout is a pipe: a ready line that was not flushed would not come.
    Cluster cluster(workers);
    std::set<std::string> expected = names, found;
    expected.insert({"scheduler", "gateway"});
    const nlohmann::json status = StatusOf(cluster);
    for (const nlohmann::json& process : status.at("processes")) {
      const std::string name = process.at("name");
      INFO(name);
      found.insert(name);
      const std::string roles = process.at("roles");
      CHECK(name.rfind(roles, 0) == 0);
      CHECK(Lives(process.at("pid").get<int64_t>()));
      CHECK(process.at("admin").get<std::string>().rfind("127.0.0.1:", 0) == 0);
      CHECK(process.at("state") == "ready");
      CHECK(process.at("restarts") == 0);
    }
    CHECK(found == expected);
    const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
    for (const Question& question : ExampleQuestions()) {
      CHECK(Ask(stub.get(), question.request).text == question.expected);
    }
    CHECK(cluster.Stop());
  }
}

TEST_CASE("Up: the status counts a restart and shows the new process", "[integration][serial]") {
  Cluster cluster("encode+prefill=1,decode=2");
  const nlohmann::json before = ProcessOf(StatusOf(cluster), "decode-1");
  cluster.Signal("decode-1", SIGKILL);
  REQUIRE(cluster.WaitRestarted("decode-1", 1));
  nlohmann::json after;
  CHECK(Eventually(kPatience, [&] {
    after = ProcessOf(StatusOf(cluster), "decode-1");
    return after.at("state") == "ready" && after.at("restarts") == 1;
  }));
  INFO(after);
  CHECK(after.at("pid") != before.at("pid"));
  CHECK(ProcessOf(StatusOf(cluster), "decode-0").at("restarts") == 0);
}

std::string AdminOf(const services::ClusterRecord& record, const std::string& name) {
  for (const services::ProcessRecord& process : record.processes) {
    if (process.name == name) return process.admin;
  }
  return "";
}

TEST_CASE("Up: admin ports stay at a restart", "[integration][serial]") {
  Cluster cluster("encode+prefill=1,decode=1");
  const services::ClusterRecord before = cluster.Record();
  for (const char* name : {"decode-0", "gateway", "scheduler"}) {
    INFO(name);
    REQUIRE_FALSE(AdminOf(before, name).empty());
    cluster.Signal(name, SIGKILL);
    REQUIRE(cluster.WaitRestarted(name, 1));
    CHECK(Eventually(kPatience,
                     [&] { return AdminOf(cluster.Record(), name) == AdminOf(before, name); }));
  }
}

TEST_CASE("Up: the status is watched until it is told to stop", "[integration][serial]") {
  Cluster cluster("encode+prefill+decode=1");
  Process watch({TriptychBinary(), "status", "--watch", "--server=" + cluster.grpc()}, "/dev/null");
  for (int i = 0; i < 2; ++i) {
    const std::string shown = watch.WaitForLine("cluster ", kPatience);
    CHECK_THAT(shown, Catch::Contains("grpc=" + cluster.grpc()));
    CHECK_THAT(shown, Catch::Contains("http=" + cluster.http()));
  }
  CHECK(watch.Terminate(kPatience));
}

TEST_CASE("Up: where the time of an ended request went is told afterwards",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  v1::GenerateRequest request = ExampleQuestions().front().request;
  request.set_request_id("asked-before");
  REQUIRE(Ask(stub.get(), request).ok);
  const std::string told = OutputOf(cluster, "timeline asked-before");
  CHECK_THAT(told, Catch::StartsWith("asked-before, "));
  CHECK_THAT(told, Catch::Contains(": stop, ") && Catch::Contains("\nqueue ") &&
                       Catch::Contains(" | encode "));
  const std::string unknown = absl::StrCat(
      TriptychBinary(), " timeline never-asked --server=", cluster.grpc(), " 2> /dev/null");
  CHECK(WEXITSTATUS(system(unknown.c_str())) == 1);
}

TEST_CASE("Up: SIGTERM under load ends every process within 15 s", "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  const services::ClusterRecord record = cluster.Record();
  REQUIRE(record.processes.size() == 5);
  Load load(cluster.grpc(), ExampleQuestions(), 8);
  REQUIRE(load.WaitAnswers(8, kPatience));
  // Requires exit code 0 within the 15 s.
  CHECK(cluster.Stop());
  load.Finish();  // that requests fail once the gateway is gone is no fault here
  CHECK(!Lives(record.supervisor_pid));
  for (const services::ProcessRecord& process : record.processes) {
    INFO(process.name);
    CHECK(!Lives(process.pid));
  }
  CHECK(!services::FindCluster(services::ClusterRecordFolder(), cluster.grpc()).ok());
}

}  // namespace
}  // namespace triptych::testing
