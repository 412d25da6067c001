// Defended: workers that cannot reach each other are kept apart for a while; what one has for the
// other goes on through somebody else, and nobody else notices.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

// Two workers a stage: 1, 2 encode; 3, 4 prefill; 5, 6 decode.
struct Pairs : ClusterFixture {
  Pairs() {
    for (uint64_t i = 1; i <= 6; ++i) Worker(i, std::string(1, "EEPPDD"[i - 1]));
    Gateway(kGateway);
  }
  uint64_t Busy(uint64_t first) const { return Tasks(first) > 0 ? first : first + 1; }
  void Unreachable(uint64_t p, uint64_t d) {
    const auto bind = workers.at(p).Last<BindConsumer>();
    Say(p, ConsumerUnreachable{bind.producer, bind.consumer, Incarnation(d)});
  }
};

}  // namespace

TEST_CASE("ClusterScheduler: a decode that its prefill cannot reach goes elsewhere",
          "[scheduler][cluster][link]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5);
  cluster.Unreachable(p, d);
  CHECK(cluster.Tasks(d) == 0);
  CHECK(cluster.Tasks(11 - d) == 1);
  CHECK(cluster.workers.at(p).Last<BindConsumer>().consumer_worker.incarnation ==
        Incarnation(11 - d));
  // Nothing of this worker goes there for now; what others have does.
  for (uint64_t i = 2; i <= 9; ++i) cluster.Submit(cluster.Text(i));
  size_t from_others = 0;
  for (const AssignDecode& assign : cluster.workers.at(d).All<AssignDecode>()) {
    from_others += assign.producer_worker.incarnation != Incarnation(p) ? 1 : 0;
  }
  CHECK(from_others > 0);
  CHECK(cluster.workers.at(d).All<AssignDecode>().size() == from_others + 1);
  CHECK(cluster.scheduler.Snapshot(cluster.now).restarts == 0);
}

TEST_CASE("ClusterScheduler: a closed pair opens again, later each time",
          "[scheduler][cluster][link]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  for (int64_t wait : {2, 4, 8}) {
    cluster.Submit(ClusterFixture::Text(static_cast<uint64_t>(wait)));
    const auto bind = cluster.workers.at(3).Last<BindConsumer>();
    const size_t before = cluster.workers.at(5).All<AssignDecode>().size();
    cluster.Say(3, ConsumerUnreachable{bind.producer, bind.consumer, Incarnation(5)});
    cluster.Pass(seconds(wait) - milliseconds(100));
    CHECK(cluster.workers.at(5).All<AssignDecode>().size() == before);
    cluster.Pass(milliseconds(200));
    CHECK(cluster.workers.at(5).All<AssignDecode>().size() > before);
    cluster.End(static_cast<uint64_t>(wait));
  }
}

TEST_CASE("ClusterScheduler: a prefill whose KV can be brought to nobody is done elsewhere",
          "[scheduler][cluster][link]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  cluster.Worker(4, "P");
  const auto bind = cluster.workers.at(3).Last<BindConsumer>();
  cluster.Say(3, ConsumerUnreachable{bind.producer, bind.consumer, Incarnation(5)});
  CHECK(cluster.Tasks(3) == 0);
  CHECK(cluster.Tasks(4) == 1);
  CHECK(cluster.workers.at(5).Last<AssignDecode>().producer_worker.incarnation == Incarnation(4));
}

TEST_CASE("ClusterScheduler: an item whose encoder cannot reach the prefill is encoded elsewhere",
          "[scheduler][cluster][link]") {
  Pairs cluster;
  cluster.Submit(cluster.Pictures(1, 1));
  const uint64_t e = cluster.Busy(1), p = cluster.Busy(3);
  const TaskId encode = cluster.workers.at(e).Last<AssignEncode>().task;
  cluster.workers.at(e).tasks.clear();
  cluster.Say(
      e, TaskFailed{.task = encode, .status = absl::UnavailableError("x"), .peer = Incarnation(p)});
  CHECK(cluster.Tasks(3 - e) == 1);
  // The encoder is not to blame: others' items go there at once.
  for (uint64_t i = 2; i <= 5; ++i) cluster.Submit(cluster.Pictures(i, 1));
  CHECK(cluster.workers.at(e).All<AssignEncode>().size() > 1);
  // When the other cannot either, the prompt moves.
  const TaskId again = cluster.workers.at(3 - e).All<AssignEncode>()[0].task;
  cluster.workers.at(3 - e).tasks.erase(again);
  cluster.Say(
      3 - e,
      TaskFailed{.task = again, .status = absl::UnavailableError("x"), .peer = Incarnation(p)});
  CHECK(cluster.workers.at(7 - p).Last<AssignPrefill>().request ==
        cluster.workers.at(p).All<AssignPrefill>()[0].request);
}

TEST_CASE("ClusterScheduler: late or foreign words about a consumer change nothing",
          "[scheduler][cluster][link]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5);
  const auto bind = cluster.workers.at(p).Last<BindConsumer>();
  cluster.Say(7 - p, ConsumerUnreachable{bind.producer, bind.consumer, Incarnation(d)});
  cluster.Say(p, ConsumerUnreachable{bind.producer, TaskId(), Incarnation(d)});
  cluster.Say(p, ConsumerUnreachable{bind.consumer, bind.consumer, Incarnation(d)});
  CHECK(cluster.Tasks(d) == 1);
  CHECK(cluster.workers.at(p).All<BindConsumer>().size() == 1);
}

}  // namespace triptych::scheduler
