// Defended: soft state is rebuilt from what peers report; work that runs goes on; what nobody
// claims is released; two schedulers are never both obeyed.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

constexpr uint64_t kGateway = ClusterFixture::kGateway;
const SchedulerId kOld{7, Incarnation(999)};

TaskId OldTask(uint64_t number) { return {kOld, number}; }
RequestId Id(uint64_t number) { return {Incarnation(kGateway), number}; }

// Puts a task of the old scheduler on a worker that has not connected yet.
struct Restarted : ClusterFixture {
  void Hold(uint64_t incarnation, const std::string& roles, const TaskReport& task) {
    FakeWorker& worker = workers[incarnation];
    worker.profile = ProfileOf(incarnation, roles);
    worker.free = {256, 1024, 16};
    worker.tasks[task.task] = task;
    worker.held[task.task] = {};
  }
  void Connect(uint64_t incarnation, const std::string& roles) {
    Worker(ProfileOf(incarnation, roles), kOld);
  }
  void ConnectGateway(std::vector<SubmitRequest> live) {
    Gateway(kGateway, std::move(live), {Incarnation(3), Incarnation(5), Incarnation(kGateway)},
            kOld);
  }
};

}  // namespace

TEST_CASE("ClusterScheduler: a cluster in which nobody has obeyed a scheduler is ready within 1 s",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Gateway(kGateway, {}, {});
  cluster.Worker(3, "P");
  CHECK(cluster.scheduler.recovering());
  cluster.Pass(milliseconds(1000));
  CHECK_FALSE(cluster.scheduler.recovering());
  CHECK(cluster.scheduler.id() == SchedulerId{1, Incarnation(1000)});
}

TEST_CASE("ClusterScheduler: a fresh gateway does not end recovery",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(5, "D",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kDecode,
                .state = TaskState::kRunning});
  // Started just now, it knows of nobody; the one that has the requests comes later.
  cluster.Gateway(kGateway + 1, {}, {});
  cluster.Connect(5, "D");
  cluster.Connect(3, "P");
  cluster.Pass(milliseconds(2500));
  CHECK(cluster.scheduler.recovering());
  cluster.ConnectGateway({ClusterFixture::Text(1)});
  CHECK_FALSE(cluster.scheduler.recovering());
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Tasks(5) == 1);
}

TEST_CASE("ClusterScheduler: recovery waits for the known peers, or 3 s",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.ConnectGateway({});
  CHECK(cluster.scheduler.id().term == 8);
  cluster.Connect(3, "P");
  cluster.Submit(cluster.Text(1));
  CHECK(cluster.workers[3].inbox.empty());
  CHECK(cluster.scheduler.Snapshot(cluster.now).recovering);
  if (GENERATE(false, true)) {
    cluster.Connect(5, "D");
  } else {
    cluster.Pass(milliseconds(3100));
  }
  CHECK_FALSE(cluster.scheduler.Snapshot(cluster.now).recovering);
  CHECK(cluster.workers[3].Last<AssignPrefill>().task.scheduler.term == 8);
  // An earlier scheduler may have placed it: no producer of the same epoch may be left.
  CHECK(cluster.workers[3].Last<AssignPrefill>().epoch == OutputEpoch(1));
}

TEST_CASE("ClusterScheduler: who was lost without a word to those who wait for it is lost for all",
          "[scheduler][cluster][recovery]") {
  // The scheduler before told its gateways of the loss and died before it told the workers.
  Restarted cluster;
  const Incarnation gone(6);
  cluster.Hold(3, "P", {.task = OldTask(1), .request = Id(1), .stage = Stage::kPrefill});
  cluster.workers[3].peers = {Incarnation(5), gone};
  cluster.Connect(5, "D");
  cluster.Connect(3, "P");
  cluster.ConnectGateway({});
  CHECK(cluster.scheduler.recovering());  // it may still come
  cluster.Pass(seconds(1));
  CHECK(cluster.dropped.empty());
  SECTION("it has died") { cluster.Pass(seconds(3)); }
  SECTION("it has died, and nobody said so in time") {
    cluster.workers[3].peers = {};
    cluster.Worker(6, "D");
    CHECK_FALSE(cluster.scheduler.recovering());
    cluster.Lose(6);
    cluster.dropped.clear();
    cluster.workers[3].peers = {gone};
    cluster.Pass(milliseconds(50));
  }
  CHECK(std::set<uint64_t>(cluster.dropped.begin(), cluster.dropped.end()) ==
        std::set<uint64_t>{6});
}

TEST_CASE("ClusterScheduler: a decode that runs is adopted and goes on",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(5, "D",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kDecode,
                .state = TaskState::kRunning,
                .epoch = OutputEpoch(2)});
  cluster.Connect(5, "D");
  cluster.Connect(3, "P");
  SubmitRequest live = cluster.Text(1);
  live.epoch = OutputEpoch(2);
  live.tokens_sent = 9;
  cluster.ConnectGateway({live});
  CHECK(cluster.Counts().decoding == 1);
  cluster.Pass(seconds(5));
  CHECK(cluster.workers[5].inbox.empty());
  CHECK(cluster.workers[3].inbox.empty());
  cluster.Say(5, TaskFailed{OldTask(1), absl::AbortedError("preempted")});
  const auto again = cluster.workers[3].Last<AssignPrefill>();
  CHECK(again.epoch == OutputEpoch(3));
  CHECK(again.prompt_tokens == 109);
}

// Both claims are dropped with the requests: a task that two of them held would not go with one.
TEST_CASE("ClusterScheduler: of two that claim one task the first has it",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  TaskReport claim{.task = OldTask(1),
                   .request = Id(1),
                   .stage = Stage::kDecode,
                   .state = TaskState::kRunning,
                   .epoch = OutputEpoch(2)};
  cluster.Hold(3, "PD", claim);
  claim.request = Id(2);
  cluster.Hold(5, "PD", claim);
  cluster.Connect(3, "PD");
  cluster.Connect(5, "PD");
  std::vector<SubmitRequest> live = {cluster.Text(1), cluster.Text(2)};
  for (SubmitRequest& submit : live) submit.epoch = OutputEpoch(2);
  cluster.ConnectGateway(live);
  CHECK(cluster.Counts().decoding == 1);
  cluster.End(2);
  cluster.End(1);
  cluster.Lose(5);
  cluster.Lose(3);
  CHECK(cluster.scheduler.Snapshot(cluster.now).workers.empty());
}

TEST_CASE("ClusterScheduler: a decode that the gateway has fenced off is not adopted",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(5, "D",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kDecode,
                .state = TaskState::kRunning,
                .epoch = OutputEpoch(1)});
  cluster.Connect(5, "D");
  cluster.Connect(3, "P");
  SubmitRequest live = cluster.Text(1);
  live.epoch = OutputEpoch(2);
  cluster.ConnectGateway({live});
  CHECK(cluster.workers[5].tasks.count(OldTask(1)) == 0);
  CHECK(cluster.workers[3].Last<AssignPrefill>().epoch == OutputEpoch(3));
}

TEST_CASE("ClusterScheduler: a kept prefill is adopted and pushed again under the next epoch",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(3, "P",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kPrefill,
                .state = TaskState::kDelivered,
                .prompt_tokens = 100});
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  cluster.ConnectGateway({cluster.Text(1)});
  CHECK(cluster.Counts().handing_over == 1);
  CHECK(cluster.workers[3].All<AssignPrefill>().empty());
  CHECK(cluster.workers[5].Last<AssignDecode>().producer == OldTask(1));
  CHECK(cluster.workers[5].Last<AssignDecode>().epoch == OutputEpoch(1));
}

TEST_CASE("ClusterScheduler: a kept prefill is adopted for what it covers, whatever was sent since",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  // Assigned when 5 tokens had been sent; 9 are now.
  cluster.Hold(3, "P",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kPrefill,
                .state = TaskState::kDelivered,
                .epoch = OutputEpoch(2),
                .prompt_tokens = 105});
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  SubmitRequest live = ClusterFixture::Text(1);
  live.epoch = OutputEpoch(2);
  live.tokens_sent = 9;
  SECTION("in the middle of the answer") {}
  SECTION("one token short of its end, which is not the one that it sampled") {
    live.max_tokens = 10;
  }
  cluster.ConnectGateway({live});
  CHECK(cluster.workers[3].All<AssignPrefill>().empty());
  const auto decode = cluster.workers[5].Last<AssignDecode>();
  CHECK(decode.producer == OldTask(1));
  CHECK(decode.prompt_tokens == 105);
  CHECK(decode.epoch == OutputEpoch(3));
}

TEST_CASE("ClusterScheduler: a kept prefill of impossible extent is redone",
          "[scheduler][cluster][recovery]") {
  const int32_t covers = GENERATE(0, 99, 110);
  Restarted cluster;
  cluster.Hold(3, "P",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kPrefill,
                .state = TaskState::kDelivered,
                .prompt_tokens = covers});
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  SubmitRequest live = ClusterFixture::Text(1);
  live.tokens_sent = 9;
  cluster.ConnectGateway({live});
  CHECK(cluster.workers[3].Last<AssignPrefill>().prompt_tokens == 109);
  CHECK(cluster.workers[3].tasks.count(OldTask(1)) == 0);
}

TEST_CASE("ClusterScheduler: a prefill whose first token was the last keeps its epoch",
          "[scheduler][cluster][recovery]") {
  // Under a higher one the gateway would not hear the token that ends the answer.
  Restarted cluster;
  cluster.Hold(3, "P",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kPrefill,
                .state = TaskState::kDelivered,
                .prompt_tokens = 100,
                .finish = Finish::kStop});
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  cluster.ConnectGateway({ClusterFixture::Text(1)});
  CHECK(cluster.Counts().finishing == 1);
  CHECK(cluster.workers[5].inbox.empty());
}

TEST_CASE("ClusterScheduler: a prefill with an item on its way is adopted with its encode",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(3, "P",
               {.task = OldTask(1),
                .request = Id(1),
                .stage = Stage::kPrefill,
                .state = TaskState::kRunning,
                .prompt_tokens = 20 + 3 * 64,
                .items_landed = {0},
                .inputs = {{1, OldTask(3)}, {2, OldTask(4)}}});
  cluster.Hold(1, "E",
               {.task = OldTask(3),
                .request = Id(1),
                .stage = Stage::kEncode,
                .item = 1,
                .consumer = OldTask(1)});
  cluster.Connect(1, "E");
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  cluster.ConnectGateway({cluster.Pictures(1, 3)});
  CHECK(cluster.Counts().prefilling == 1);
  // Item 0 has landed, 1 is being encoded, 2 was lost.
  REQUIRE(cluster.workers[1].All<AssignEncode>().size() == 1);
  CHECK(cluster.workers[1].Last<AssignEncode>().item == 2);
  CHECK(cluster.workers[1].Last<AssignEncode>().consumer == OldTask(1));
  cluster.Say(1, TaskDelivered{OldTask(3)});
  cluster.Say(1, TaskDelivered{cluster.workers[1].Last<AssignEncode>().task});
  CHECK(cluster.Counts().handing_over == 1);
}

TEST_CASE("ClusterScheduler: a task that is being released is not adopted",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  // Written before the release arrives, heard after it was sent.
  const WorkerReport late = cluster.workers[3].Report();
  cluster.Lose(kGateway);
  cluster.Say(3, late);
  cluster.Gateway(kGateway, {ClusterFixture::Text(1)});
  CHECK(cluster.workers[3].All<AssignPrefill>().size() == 2);
  CHECK(cluster.workers[3].Last<AssignPrefill>().epoch == OutputEpoch(1));
}

TEST_CASE("ClusterScheduler: a worker that says that it drains gets nothing new",
          "[scheduler][cluster]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(4, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  WorkerReport report = cluster.workers[3].Report();
  report.draining = true;
  cluster.Say(3, report);
  for (uint64_t i = 1; i <= 4; ++i) cluster.Submit(ClusterFixture::Text(i));
  CHECK(cluster.workers[3].All<AssignPrefill>().empty());
  CHECK(cluster.workers[4].All<AssignPrefill>().size() == 4);
}

TEST_CASE("ClusterScheduler: what nobody claims is released after a grace",
          "[scheduler][cluster][recovery]") {
  Restarted cluster;
  cluster.Hold(3, "P", {.task = OldTask(1), .request = Id(1), .stage = Stage::kPrefill});
  cluster.Connect(3, "P");
  cluster.Connect(5, "D");
  cluster.ConnectGateway({});
  cluster.Pass(milliseconds(1800));
  CHECK(cluster.Tasks(3) == 1);
  cluster.Pass(milliseconds(400));
  CHECK(cluster.Tasks(3) == 0);
}

TEST_CASE("ClusterScheduler: a task missing from an inventory is assigned again",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  FakeWorker& worker = cluster.workers[3];
  WorkerReport early = worker.Report();
  early.tasks.clear();
  early.handled_sequence = 0;  // cannot know of it yet
  cluster.Say(3, early);
  CHECK(worker.All<AssignPrefill>().size() == 1);
  SECTION("lost inside the worker") {
    worker.tasks.clear();
    cluster.Say(3, worker.Report());
  }
  SECTION("lost with the stream") {
    worker.tasks.clear();
    cluster.Worker(3, "P");
  }
  CHECK(worker.All<AssignPrefill>().size() == 2);
  CHECK(worker.Last<AssignPrefill>().epoch == OutputEpoch(1));
}

TEST_CASE("ClusterScheduler: an inventory tells what a lost message would have",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(1, "E");
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Pictures(1, 1));
  auto& prefill = cluster.workers[3].tasks.begin()->second;
  prefill.items_landed = {0};
  cluster.Say(3, cluster.workers[3].Report());
  CHECK(cluster.Counts().handing_over == 1);
  prefill.state = TaskState::kDelivered;
  cluster.Say(3, cluster.workers[3].Report());
  cluster.workers[5].tasks.begin()->second.state = TaskState::kRunning;
  cluster.Say(5, cluster.workers[5].Report());
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Tasks(3) == 0);
}

TEST_CASE("ClusterScheduler: a consumer's table that lost a message is told again",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(1, "E");
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Pictures(1, 1));
  FakeWorker& worker = cluster.workers[3];
  TaskReport& prefill = worker.tasks.begin()->second;
  prefill.inputs.clear();
  cluster.Worker(3, "P");
  CHECK(worker.All<Rebind>().size() == 2);
  cluster.Say(3, worker.Report());
  CHECK(worker.All<Rebind>().size() == 2);  // the table is right again
  cluster.Say(3, ItemLanded{prefill.task, {0, TaskId()}});
  prefill.consumer = TaskId();
  cluster.Worker(3, "P");
  CHECK(worker.All<BindConsumer>().size() == 2);
  CHECK(worker.All<AssignPrefill>().size() == 1);
}

TEST_CASE("ClusterScheduler: a gateway's second hello ends what it no longer has",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  for (uint64_t i = 1; i <= 2; ++i) cluster.Submit(ClusterFixture::Text(i));
  cluster.Gateway(kGateway, {ClusterFixture::Text(2)});
  CHECK(cluster.Tasks(3) == 1);
  CHECK(cluster.workers[3].All<AssignPrefill>().size() == 2);
}

TEST_CASE("ClusterScheduler: one that meets a higher scheduler's peer starts again above it",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  const size_t told = cluster.workers[3].inbox.size();
  cluster.Worker(ProfileOf(4, "P"), kOld);
  CHECK(cluster.dropped == std::vector<uint64_t>{3, 5, kGateway});
  CHECK(cluster.scheduler.id() == SchedulerId{8, Incarnation(1000)});
  CHECK(cluster.scheduler.Snapshot(cluster.now).recovering);
  CHECK(cluster.workers[3].inbox.size() == told);  // whom it had obeys another now
  CHECK(cluster.failures.empty());
  // Dropped peers that come back are served again.
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway, {ClusterFixture::Text(1)});
  CHECK(cluster.Counts().handing_over == 1);
}

TEST_CASE("ClusterScheduler: who comes back from a higher scheduler is not lost, and nothing fails",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster({.max_lost_workers = 1});
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  REQUIRE(cluster.Tasks(5) == 1);
  const size_t told = cluster.workers[3].inbox.size();
  if (GENERATE(false, true)) {
    cluster.Worker(ProfileOf(5, "D"), kOld);
    CHECK(cluster.dropped == std::vector<uint64_t>{3, kGateway});
  } else {
    cluster.Gateway(kGateway, {}, {}, kOld);
    CHECK(cluster.dropped == std::vector<uint64_t>{3, 5});
  }
  CHECK(cluster.failures.empty());
  CHECK(cluster.workers[3].inbox.size() == told);
  CHECK(cluster.scheduler.Snapshot(cluster.now).workers_lost == 0);
}

TEST_CASE("ClusterScheduler: lower schedulers' peers are taken as they are",
          "[scheduler][cluster][recovery]") {
  ClusterFixture cluster;
  cluster.Gateway(kGateway);
  cluster.Worker(ProfileOf(3, "P"), {0, Incarnation(5)});
  CHECK(cluster.dropped.empty());
  CHECK(cluster.scheduler.id().term == 1);
}

}  // namespace triptych::scheduler
