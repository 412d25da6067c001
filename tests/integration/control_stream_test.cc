// Defends that a control stream is not a life: real processes whose streams to the scheduler are
// reset, cut again and again, or held for seconds. Nobody is given up, no request starts again, and
// every text is that of an undisturbed run.

#include <catch2/catch.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/support/tcp_proxy.h"

namespace triptych::testing {
namespace {

constexpr base::Duration kPatience = kSlowdown * std::chrono::minutes(1);
constexpr int kAskers = 8 / kSlowdown;

// Workers and gateway speak to the scheduler through the proxy alone.
struct Proxied {
  const int port = FreePort();
  TcpProxy proxy{port};
  Cluster cluster{"encode=1,prefill=2,decode=2",
                  {absl::StrCat("--scheduler-listen=127.0.0.1:", port),
                   absl::StrCat("--worker-flags=--scheduler=", proxy.address()),
                   absl::StrCat("--gateway-flags=--scheduler=", proxy.address())}};
};

std::vector<Question> Questions() {
  std::vector<Question> questions;
  for (Question& question : LongQuestions(4, 100)) {
    for (Question& picture : ExampleQuestions()) questions.push_back(std::move(picture));
    questions.push_back(std::move(question));
  }
  return questions;
}

TEST_CASE("Control streams: however they break, nothing starts again and no text changes",
          "[integration][slow][serial]") {
  Proxied proxied;
  const Cluster& cluster = proxied.cluster;
  const std::vector<Question> questions = Questions();
  Load load(cluster.grpc(), questions, kAskers);
  // Each question at least once: the texts of the undisturbed run.
  REQUIRE(load.WaitAnswers(static_cast<int>(questions.size()) + kAskers, kPatience));
  // Every stream at once.
  REQUIRE(proxied.proxy.ResetAll() >= 6);
  REQUIRE(load.WaitOneEach(kPatience));
  // A middlebox that cuts what is 5 s old.
  for (int i = 0; i < 3; ++i) {
    WaitAMoment(std::chrono::seconds(5));
    REQUIRE(proxied.proxy.ResetAll() >= 6);
  }
  REQUIRE(load.WaitOneEach(kPatience));
  // 3 s without the scheduler; its streams stay open.
  for (bool hold : {true, false}) {
    proxied.proxy.Hold(TcpProxy::Direction::kToTarget, hold);
    proxied.proxy.Hold(TcpProxy::Direction::kFromTarget, hold);
    if (hold) WaitAMoment(std::chrono::seconds(3));
  }
  REQUIRE(load.WaitOneEach(kPatience));
  const std::vector<std::string> faults = load.Finish();
  INFO(absl::StrJoin(faults, "\n"));
  CHECK(faults.empty());
  CHECK(cluster.MetricOf("scheduler", "triptych_control_streams_lost_total") >= 24);
  CHECK(cluster.MetricOf("scheduler", "triptych_request_restarts_total") == 0);
  CHECK(cluster.MetricOf("scheduler", "triptych_workers_lost_total") == 0);
  for (const services::ProcessRecord& process : cluster.Record().processes) {
    INFO(process.name);
    CHECK(process.restarts == 0);
  }
  const bool at_rest = cluster.WaitFreed(kSlowdown * std::chrono::seconds(5));
  INFO(cluster.HeldResourcesByName());
  CHECK(at_rest);
}

}  // namespace
}  // namespace triptych::testing
