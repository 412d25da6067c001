// Defended: whatever is lost, a request goes on from the furthest result that still exists, is
// never tried for ever, and never ends twice.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

// Two workers a stage: E 1, 2; P 3, 4; D 5, 6.
struct Pairs : ClusterFixture {
  explicit Pairs(ClusterConfig config = {}) : ClusterFixture(config) {
    for (uint64_t id : {1, 2}) Worker(id, "E");
    for (uint64_t id : {3, 4}) Worker(id, "P");
    for (uint64_t id : {5, 6}) Worker(id, "D");
    Gateway(kGateway);
  }
  // The worker of a pair that holds a task.
  uint64_t Busy(uint64_t first) const { return Tasks(first) > 0 ? first : first + 1; }
  FakeWorker& At(uint64_t id) { return workers.at(id); }
  TaskId LastPrefill(uint64_t id) { return At(id).Last<AssignPrefill>().task; }
  TaskId LastDecode(uint64_t id) { return At(id).Last<AssignDecode>().task; }
};

}  // namespace

TEST_CASE("ClusterScheduler: a lost encoder costs its undelivered items alone",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Pictures(1, 2));
  const uint64_t p = cluster.Busy(3);
  const TaskId prefill = cluster.LastPrefill(p);
  const auto first = cluster.At(1).Last<AssignEncode>();
  cluster.Say(1, TaskDelivered{first.task});
  const auto lost = cluster.At(2).Last<AssignEncode>();
  cluster.Lose(2);
  const auto again = cluster.At(1).Last<AssignEncode>();
  CHECK(again.item == lost.item);
  CHECK(again.task != lost.task);
  CHECK(again.consumer == prefill);
  const auto rebind = cluster.At(p).Last<Rebind>();
  CHECK(rebind.input.item == lost.item);
  CHECK(rebind.input.producer == again.task);
  CHECK(cluster.At(p).All<AssignPrefill>().size() == 1);
  CHECK(cluster.At(1).All<AssignEncode>().size() == 2);
}

TEST_CASE("ClusterScheduler: an item that has landed after all waits for no encoder",
          "[scheduler][cluster][loss]") {
  ClusterFixture cluster({.encoder_backlog_tasks = 1});
  for (uint64_t i = 1; i <= 4; ++i) cluster.Worker(i, std::string(1, "EEPD"[i - 1]));
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Pictures(1, 2));
  const auto encode = cluster.workers[1].Last<AssignEncode>();
  cluster.Lose(1);
  CHECK(cluster.scheduler.Snapshot(cluster.now).requests.prefilling == 1);
  cluster.Say(3, ItemLanded{encode.consumer, {encode.item, encode.task}, 64});
  cluster.Submit(ClusterFixture::Text(2));
  CHECK(cluster.workers[2].All<AssignEncode>().size() == 1);
}

TEST_CASE("ClusterScheduler: a lost prefill starts again elsewhere under the next epoch",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Pictures(1, 1));
  const uint64_t p = cluster.Busy(3), other = 7 - p;
  const bool landed = GENERATE(false, true);
  if (landed) {
    cluster.Say(p, ItemLanded{cluster.LastPrefill(p), {0, TaskId()}});
    cluster.Say(p, FirstTokenSampled{cluster.LastPrefill(p)});
    CHECK(cluster.Counts().handing_over == 1);
  }
  cluster.Lose(p);
  CHECK(cluster.At(other).Last<AssignPrefill>().epoch == OutputEpoch(1));
  CHECK(cluster.Tasks(5) + cluster.Tasks(6) == 0);
  CHECK(cluster.At(1).All<AssignEncode>().size() + cluster.At(2).All<AssignEncode>().size() == 2);
  CHECK(cluster.Counts().prefilling == 1);
}

TEST_CASE("ClusterScheduler: a lost decode is bound again while the prefill keeps its KV",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5), other = 11 - d;
  const TaskId prefill = cluster.LastPrefill(p);
  const bool sampled = GENERATE(false, true);
  if (sampled) cluster.Say(p, FirstTokenSampled{prefill});
  cluster.Lose(d);
  const auto decode = cluster.At(other).Last<AssignDecode>();
  CHECK(decode.producer == prefill);
  // The lost one may have streamed only once there was a first token.
  CHECK(decode.epoch == OutputEpoch(sampled ? 1 : 0));
  CHECK(cluster.At(p).Last<BindConsumer>().consumer == decode.task);
  CHECK(cluster.At(p).All<AssignPrefill>().size() == 1);
  cluster.Say(p, FirstTokenSampled{prefill});
  cluster.Say(other, DecodeStarted{decode.task});
  CHECK(cluster.Counts().decoding == 1);
}

TEST_CASE("ClusterScheduler: a decode lost after it started, or preempted, goes back to prefill",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5);
  const TaskId decode = cluster.LastDecode(d);
  cluster.Say(p, FirstTokenSampled{cluster.LastPrefill(p)});
  cluster.Say(d, DecodeStarted{decode});
  if (GENERATE(false, true)) {
    cluster.Lose(d);
  } else {
    cluster.Say(d, TaskFailed{decode, absl::AbortedError("preempted")});
    CHECK(cluster.At(d).tasks.count(decode) == 0);
  }
  CHECK(cluster.At(cluster.Busy(3)).Last<AssignPrefill>().epoch == OutputEpoch(1));
  CHECK(cluster.Counts().handing_over == 1);
  CHECK(cluster.failures.empty());
}

TEST_CASE("ClusterScheduler: a failure tells how much the next prefill has to cover",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1, 100));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5);
  cluster.Say(p, FirstTokenSampled{cluster.LastPrefill(p)});
  cluster.Say(d, DecodeStarted{cluster.LastDecode(d)});
  cluster.Say(d, TaskFailed{cluster.LastDecode(d), absl::AbortedError("preempted"), 4});
  const uint64_t next = cluster.Busy(3);
  CHECK(cluster.At(next).Last<AssignPrefill>().prompt_tokens == 104);
  // Who knows less takes nothing back.
  cluster.Say(next, TaskFailed{cluster.LastPrefill(next), absl::AbortedError("no room"), 2});
  CHECK(cluster.At(cluster.Busy(3)).Last<AssignPrefill>().prompt_tokens == 104);
}

TEST_CASE("ClusterScheduler: a request that has lost three workers ends with INTERNAL",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  for (uint64_t id = 10; id < 14; ++id) cluster.Worker(id, "P");
  cluster.Submit(cluster.Text(1));
  for (int i = 0; i < 3; ++i) {
    CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
    uint64_t holder = 0;
    for (auto& [id, worker] : cluster.workers) {
      if (worker.profile.roles.has(Stage::kPrefill) && !worker.tasks.empty()) holder = id;
    }
    cluster.Lose(holder);
  }
  CHECK(cluster.Failure(1) == absl::StatusCode::kInternal);
  for (auto& [id, worker] : cluster.workers) CHECK(worker.tasks.empty());
}

TEST_CASE("ClusterScheduler: INTERNAL is tried on one more worker, other codes end the request",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  uint64_t p = cluster.Busy(3);
  cluster.Say(p, TaskFailed{cluster.LastPrefill(p), absl::InternalError("broken")});
  CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  CHECK(cluster.Busy(3) == 7 - p);  // elsewhere: the first is closed for a while
  p = cluster.Busy(3);
  cluster.Say(p, TaskFailed{cluster.LastPrefill(p), absl::InternalError("broken")});
  CHECK(cluster.Failure(1) == absl::StatusCode::kInternal);

  cluster.Submit(cluster.Pictures(2, 1));
  cluster.Pass(seconds(1));
  const uint64_t e = cluster.Busy(1);
  cluster.Say(e, TaskFailed{cluster.At(e).Last<AssignEncode>().task,
                            absl::InvalidArgumentError("not a picture")});
  CHECK(cluster.Failure(2) == absl::StatusCode::kInvalidArgument);
  for (auto& [id, worker] : cluster.workers) CHECK(worker.tasks.empty());
}

TEST_CASE(
    "ClusterScheduler: a producer that its gateway does not know is followed by the next epoch",
    "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3), d = cluster.Busy(5);
  const TaskId prefill = cluster.LastPrefill(p);
  const int who = GENERATE(0, 1, 2);
  if (who < 2) {
    const uint64_t behind = who == 0 ? p : d;
    const TaskId task = who == 0 ? prefill : cluster.LastDecode(d);
    cluster.Say(behind, TaskFailed{task, absl::NotFoundError("gone")});
    // Only the gateway says that a request is over: it may be behind a fence that we know not of.
    CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
    CHECK(cluster.At(cluster.Busy(3)).Last<AssignPrefill>().epoch == OutputEpoch(1));
  } else {
    cluster.Say(p, FirstTokenSampled{prefill});
    cluster.Lose(d);  // raises the epoch: the prefill's own stream is fenced off
    cluster.Say(p, TaskFailed{prefill, absl::NotFoundError("gone")});
    CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
    CHECK(cluster.At(cluster.Busy(3)).Last<AssignPrefill>().epoch == OutputEpoch(2));
  }
}

TEST_CASE("ClusterScheduler: a refusing worker is left alone for a while, then tried again",
          "[scheduler][cluster][loss]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Text(1));
  FakeWorker& worker = cluster.workers[3];
  for (int i = 1; i <= 20; ++i) {
    REQUIRE(worker.All<AssignPrefill>().size() == static_cast<size_t>(i));
    CHECK(worker.Last<AssignPrefill>().epoch == OutputEpoch(0));
    cluster.Say(3, TaskRefused{worker.Last<AssignPrefill>().task, 256, 1024, 16});
    CHECK(worker.All<AssignPrefill>().size() == static_cast<size_t>(i));
    CHECK(cluster.Counts().queued == 1);
    cluster.Pass(milliseconds(350));  // the longest back-off
  }
  CHECK(cluster.failures.empty());
}

TEST_CASE("ClusterScheduler: refusals of one request are bounded", "[scheduler][cluster][loss]") {
  Pairs cluster({.max_refusals = 3});
  cluster.Submit(cluster.Text(1));
  for (int i = 0; i < 4; ++i) {
    CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
    const uint64_t p = cluster.Busy(3);
    cluster.Say(p, TaskRefused{cluster.LastPrefill(p), 256, 0, 16});
    cluster.Pass(milliseconds(350));
  }
  CHECK(cluster.Failure(1) == absl::StatusCode::kResourceExhausted);
  CHECK(cluster.failures[1][0].retry_after > base::Duration(0));
}

TEST_CASE("ClusterScheduler: a decode that refuses is bound elsewhere, the prefill stays",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t d = cluster.Busy(5);
  cluster.Say(d, TaskRefused{cluster.LastDecode(d), 0, 0, 0});
  CHECK(cluster.Busy(5) == 11 - d);
  CHECK(cluster.At(11 - d).Last<AssignDecode>().epoch == OutputEpoch(0));
}

TEST_CASE("ClusterScheduler: an encoder that refuses is replaced for that item",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Pictures(1, 1));
  const uint64_t e = cluster.Busy(1);
  cluster.Say(e, TaskRefused{cluster.At(e).Last<AssignEncode>().task, 0, 0, 0});
  CHECK(cluster.Busy(1) == 3 - e);
}

TEST_CASE("ClusterScheduler: a silent peer is dropped after 2.5 s, not earlier",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3);
  cluster.Pass(milliseconds(2400), p);
  CHECK(cluster.dropped.empty());
  cluster.Pass(milliseconds(300), p);
  CHECK(cluster.dropped == std::vector<uint64_t>{p});
  CHECK(cluster.At(7 - p).All<AssignPrefill>().size() == 1);
  // Late words of the lost one change nothing.
  cluster.Say(p, FirstTokenSampled{cluster.LastPrefill(p), Finish::kStop});
  CHECK(cluster.Counts().finishing == 0);
}

TEST_CASE("ClusterScheduler: its own standstill is nobody's silence",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Pass(seconds(1));
  cluster.now += seconds(30);
  cluster.scheduler.OnTime(cluster.now);
  cluster.Drain();
  CHECK(cluster.dropped.empty());
}

TEST_CASE("ClusterScheduler: a lost gateway takes its requests along",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  for (uint64_t i = 1; i <= 5; ++i) cluster.Submit(cluster.Pictures(i, 1));
  cluster.Lose(ClusterFixture::kGateway);
  for (auto& [id, worker] : cluster.workers) CHECK(worker.tasks.empty());
  const RequestCounts counts = cluster.Counts();
  CHECK(counts.queued + counts.prefilling == 0);
  CHECK(cluster.failures.empty());
}

TEST_CASE("ClusterScheduler: a cancel is legal in every state", "[scheduler][cluster][loss]") {
  const int steps = GENERATE(0, 1, 2, 3, 4);
  CAPTURE(steps);
  Pairs cluster;
  cluster.Submit(cluster.Pictures(1, 1));
  const uint64_t p = cluster.Busy(3);
  const TaskId prefill = cluster.LastPrefill(p);
  if (steps > 0) cluster.Say(p, ItemLanded{prefill, {0, TaskId()}});
  if (steps > 1) cluster.Say(p, FirstTokenSampled{prefill});
  if (steps > 2) cluster.Say(cluster.Busy(5), DecodeStarted{cluster.LastDecode(cluster.Busy(5))});
  if (steps > 3) cluster.Say(cluster.Busy(5), TaskDelivered{cluster.LastDecode(cluster.Busy(5))});
  cluster.End(1);
  for (auto& [id, worker] : cluster.workers) {
    // A landed item's encoder frees it by itself.
    if (worker.profile.roles.has(Stage::kEncode) && steps > 0) continue;
    CHECK(worker.tasks.empty());
  }
  for (const WorkerSnapshot& worker : cluster.scheduler.Snapshot(cluster.now).workers) {
    CHECK(worker.tasks == std::array<int32_t, 3>{});
  }
  CHECK(cluster.failures.empty());
}

TEST_CASE("ClusterScheduler: a deadline ends a request wherever it is",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  SubmitRequest submit = cluster.Text(1);
  submit.time_left = milliseconds(500);
  cluster.Submit(submit);
  cluster.Pass(milliseconds(400));
  CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  cluster.Pass(milliseconds(150));
  CHECK(cluster.Failure(1) == absl::StatusCode::kDeadlineExceeded);
  for (auto& [id, worker] : cluster.workers) CHECK(worker.tasks.empty());
}

TEST_CASE("ClusterScheduler: a draining worker gets nothing new and finishes what it has",
          "[scheduler][cluster][loss]") {
  Pairs cluster;
  cluster.Submit(cluster.Text(1));
  const uint64_t p = cluster.Busy(3);
  cluster.scheduler.Drain(Incarnation(p), cluster.now);
  cluster.Drain();
  CHECK(cluster.At(p).All<DrainWorker>().size() == 1);
  for (uint64_t i = 2; i < 6; ++i) cluster.Submit(cluster.Text(i));
  CHECK(cluster.At(p).All<AssignPrefill>().size() == 1);
  CHECK(cluster.At(7 - p).All<AssignPrefill>().size() == 4);
  CHECK(cluster.Tasks(p) == 1);
}

}  // namespace triptych::scheduler
