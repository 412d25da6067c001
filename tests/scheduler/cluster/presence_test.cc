// Defended: a stream is not a life. Who comes back in time has lost nothing; who does not is lost;
// a scheduler that is itself cut off loses nobody.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

constexpr uint64_t kGateway = ClusterFixture::kGateway;

RequestId Id(uint64_t number) { return {Incarnation(kGateway), number}; }

// Two workers a stage: 1, 2 encode; 3, 4 prefill; 5, 6 decode.
struct Pairs : ClusterFixture {
  Pairs() {
    for (uint64_t i = 1; i <= 6; ++i) Worker(i, std::string(1, "EEPPDD"[i - 1]));
    Gateway(kGateway);
  }
  uint64_t Busy(uint64_t first) const { return Tasks(first) > 0 ? first : first + 1; }
  template <typename Assign>
  size_t Assigned() const {
    size_t count = 0;
    for (const auto& [id, worker] : workers) count += worker.template All<Assign>().size();
    return count;
  }
  // A request that decodes, and its decode worker.
  uint64_t Decoding(uint64_t number) {
    Submit(Text(number));
    const uint64_t p = Busy(3);
    Say(p, FirstTokenSampled{workers.at(p).Last<AssignPrefill>().task});
    const uint64_t d = Busy(5);
    Say(d, DecodeStarted{workers.at(d).Last<AssignDecode>().task});
    workers.at(d).tasks.begin()->second.state = TaskState::kRunning;
    REQUIRE(Counts().decoding == 1);
    return d;
  }
  int64_t Restarts() const { return scheduler.Snapshot(now).restarts; }
};

}  // namespace

TEST_CASE("ClusterScheduler: a worker whose stream breaks and is back at once loses no work",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  cluster.Disconnect(d);
  cluster.Pass(milliseconds(600), d);
  CHECK(cluster.Counts().decoding == 1);
  cluster.Worker(d, "D");
  cluster.Pass(seconds(5));
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Tasks(d) == 1);
  CHECK(cluster.dropped.empty());
  CHECK(cluster.Restarts() == 0);
}

TEST_CASE("ClusterScheduler: a worker that does not come back is lost after the grace",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  cluster.Disconnect(d);
  cluster.Pass(milliseconds(600), d);
  CHECK(cluster.dropped.empty());
  cluster.Pass(milliseconds(300), d);
  CHECK(cluster.dropped == std::vector<uint64_t>{d});
  CHECK(cluster.Counts().prefilling + cluster.Counts().handing_over == 1);
  CHECK(cluster.Restarts() == 1);
}

TEST_CASE("ClusterScheduler: nothing new is placed on a peer without a stream, or on a silent one",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  SECTION("broken") { cluster.Disconnect(3); }
  SECTION("silent for ten reports") { cluster.Pass(milliseconds(1150), 3); }
  for (uint64_t i = 1; i <= 6; ++i) cluster.Submit(cluster.Text(i));
  CHECK(cluster.workers.at(3).All<AssignPrefill>().empty());
  CHECK(cluster.workers.at(4).All<AssignPrefill>().size() == 6);
  cluster.Worker(3, "P");
  cluster.Submit(cluster.Text(7));
  CHECK(cluster.workers.at(3).All<AssignPrefill>().size() == 1);
}

TEST_CASE("ClusterScheduler: what fits only a worker that is missing waits for it",
          "[scheduler][cluster][presence]") {
  ClusterFixture cluster;
  WorkerProfile large = ProfileOf(3, "P");
  large.kv_blocks = 1000;
  cluster.Worker(large);
  cluster.Worker(4, "P");
  cluster.Worker(5, "D");
  WorkerProfile decode = ProfileOf(6, "D");
  decode.kv_blocks = 1000;
  cluster.Worker(decode);
  cluster.Gateway(kGateway);
  cluster.Disconnect(3);
  cluster.Submit(cluster.Text(1, 300 * 16));
  CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  cluster.Worker(large);
  CHECK(cluster.workers.at(3).All<AssignPrefill>().size() == 1);
}

TEST_CASE("ClusterScheduler: a gateway whose stream breaks and is back at once loses no work",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  cluster.Disconnect(kGateway);
  cluster.Pass(milliseconds(500), kGateway);
  SubmitRequest live = cluster.Text(1);
  live.tokens_sent = 3;
  cluster.Gateway(kGateway, {live});
  cluster.Pass(seconds(5));
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Tasks(d) == 1);
  CHECK(cluster.Restarts() == 0);
}

TEST_CASE("ClusterScheduler: what a gateway ended while it was away is released at its return",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  cluster.Disconnect(kGateway);
  cluster.Gateway(kGateway);
  CHECK(cluster.Tasks(d) == 0);
}

TEST_CASE("ClusterScheduler: one reset of every control stream restarts nothing",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  cluster.Decoding(1);
  for (uint64_t i = 2; i <= 9; ++i) cluster.Submit(cluster.Pictures(i, 2));
  const size_t prefills = cluster.Assigned<AssignPrefill>();
  const size_t encodes = cluster.Assigned<AssignEncode>();
  for (uint64_t i = 1; i <= 6; ++i) cluster.Disconnect(i);
  cluster.Disconnect(kGateway);
  std::vector<SubmitRequest> live = {cluster.Text(1)};
  for (uint64_t i = 2; i <= 9; ++i) live.push_back(cluster.Pictures(i, 2));
  cluster.now += milliseconds(80);
  cluster.Gateway(kGateway, live);
  for (uint64_t i = 1; i <= 6; ++i) cluster.Worker(i, std::string(1, "EEPPDD"[i - 1]));
  cluster.Pass(seconds(5));
  CHECK(cluster.dropped.empty());
  CHECK(cluster.Restarts() == 0);
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Assigned<AssignPrefill>() == prefills);
  CHECK(cluster.Assigned<AssignEncode>() == encodes);
}

TEST_CASE("ClusterScheduler: an assignment that was lost with its stream is no restart",
          "[scheduler][cluster][presence]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  cluster.workers.at(3).tasks.clear();  // it never arrived
  cluster.Disconnect(3);
  cluster.Worker(3, "P");
  CHECK(cluster.workers.at(3).All<AssignPrefill>().size() == 2);
  CHECK(cluster.scheduler.Snapshot(cluster.now).restarts == 0);
}

TEST_CASE("ClusterScheduler: what was released while its worker was away goes when it is back",
          "[scheduler][cluster][presence]") {
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  const FakeWorker before = cluster.workers.at(d);
  cluster.Disconnect(d);
  cluster.End(1);
  cluster.workers.at(d) = before;  // the release did not reach it
  cluster.Worker(d, "D");
  cluster.Pass(milliseconds(150));
  CHECK(cluster.Tasks(d) == 0);
}

TEST_CASE("ClusterScheduler: one that loses most peers at once is cut off and gives up nobody",
          "[scheduler][cluster][presence]") {
  const bool broken = GENERATE(true, false);
  CAPTURE(broken);
  Pairs cluster;
  const uint64_t d = cluster.Decoding(1);
  const std::set<uint64_t> away = {1, 2, 3, 4, 5, 6, kGateway};
  if (broken) {
    for (uint64_t peer : away) cluster.Disconnect(peer);
  }
  cluster.Pass(seconds(3), away);
  CHECK(cluster.dropped.empty());
  SECTION("whoever returns is placed on at once") {
    cluster.Gateway(kGateway, {cluster.Text(1), cluster.Text(2)});
    cluster.Worker(3, "P");
    CHECK(cluster.workers.at(3).All<AssignPrefill>().back().request == Id(2));
    for (uint64_t i : {1, 2, 4, 5, 6}) cluster.Worker(i, std::string(1, "EEPPDD"[i - 1]));
    cluster.Pass(seconds(5));
    CHECK(cluster.dropped.empty());
    CHECK(cluster.Tasks(d) >= 1);
    CHECK(cluster.Restarts() == 0);
  }
  SECTION("but not for longer than recovery waits") {
    cluster.Gateway(kGateway, {cluster.Text(1)});
    cluster.Worker(3, "P");
    cluster.Pass(seconds(3), {1, 2, 4, 5, 6});
    CHECK(cluster.dropped.size() == 5);
  }
}

TEST_CASE("ClusterScheduler: few peers that go together, or one after the other, are lost",
          "[scheduler][cluster][presence]") {
  SECTION("three known, two gone") {
    ClusterFixture cluster;
    cluster.Worker(3, "P");
    cluster.Worker(5, "D");
    cluster.Gateway(kGateway);
    cluster.Disconnect(3);
    cluster.Disconnect(5);
    cluster.Pass(milliseconds(850), {3, 5});
    CHECK(cluster.dropped.size() == 2);
  }
  SECTION("half of them") {
    Pairs cluster;
    for (uint64_t peer : {1, 3, 5}) cluster.Disconnect(peer);
    cluster.Pass(milliseconds(850), {1, 3, 5});
    CHECK(cluster.dropped.size() == 3);
  }
}

}  // namespace triptych::scheduler
