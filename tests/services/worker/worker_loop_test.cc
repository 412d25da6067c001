// Defended: the worker's one thread carries a request from assignment to its last token, keeps
// count for the scheduler, gives everything back, and ends at any moment while others post. No gRPC
// is linked, so that ThreadSanitizer can watch.

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "base/random.h"
#include "tests/services/worker/scripted_worker.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using testing::ScriptedWorker;
using testing::Task;

TEST_CASE("WorkerLoop: a prefill and a decode on one worker stream every token",
          "[services][worker]") {
  ScriptedWorker worker;
  worker.Tell(worker.Prefill(1));
  REQUIRE(worker.links.WaitFor<scheduler::TaskAccepted>(Task(1)));
  REQUIRE(worker.links.WaitFor<scheduler::FirstTokenSampled>(Task(1)));
  worker.HandOver(1, 1, 2);
  REQUIRE(worker.links.WaitFor<scheduler::DecodeStarted>(Task(2)));
  REQUIRE(worker.links.WaitForFinish());
  CHECK(worker.links.tokens() ==
        std::map<int32_t, int32_t>{{0, 100}, {1, 101}, {2, 102}, {3, 103}, {4, 104}});
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  worker.Tell(scheduler::ReleaseTask{Task(2)});
  REQUIRE(worker.links.WaitForDrop(Task(2)));
  CHECK(worker.Idle());
}

TEST_CASE("WorkerLoop: reports say how many of the scheduler's messages they reflect",
          "[services][worker]") {
  ScriptedWorker worker;
  worker.Tell(worker.Prefill(1));
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  CHECK(worker.links.WaitForHandled(3));
  // A hello begins anew.
  const auto report = worker.loop.ReportForHello();
  REQUIRE(report.has_value());
  CHECK(report->has_inventory);
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  CHECK(worker.links.WaitForHandled(1));
}

TEST_CASE("WorkerLoop: the log tells each task's story by its request", "[services][worker]") {
  ScriptedWorker worker;
  worker.links.answer_pulls = false;
  const scheduler::AssignPrefill assign = worker.Prefill(1);
  worker.Tell(assign);
  REQUIRE(worker.links.WaitFor<scheduler::TaskAccepted>(Task(1)));
  worker.loop.PostPulled(Task(1), absl::NotFoundError("fenced off"));
  REQUIRE(worker.links.WaitFor<scheduler::TaskFailed>(Task(1)));
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  REQUIRE(worker.links.WaitForHandled(2));
  const std::vector<std::string> lines = worker.log.lines();
  REQUIRE(lines.size() == 3);
  using Catch::Contains;
  for (const std::string& line : lines) {
    CHECK_THAT(line, Contains("\"stage\":\"prefill\",\"request_id\":\"" + ToString(assign.request) +
                              "\",\"epoch\":"));
  }
  CHECK_THAT(lines[0], Contains("task assigned"));
  CHECK_THAT(lines[1], Contains("task accepted"));
  CHECK_THAT(lines[2], Contains("\"level\":\"warning\"") && Contains("fenced off"));
}

TEST_CASE("WorkerLoop: is idle only once nothing is held", "[services][worker]") {
  ScriptedWorker worker;
  worker.links.answer_pulls = false;
  worker.Tell(worker.Prefill(1));
  // What was posted before counts, handled or not.
  CHECK_FALSE(worker.loop.WaitUntilIdle(worker.clock.Now() + std::chrono::milliseconds(20)));
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  CHECK(worker.Idle());
}

TEST_CASE("WorkerLoop: a draining worker refuses what is new", "[services][worker]") {
  ScriptedWorker worker;
  worker.loop.PostDrain();
  worker.Tell(worker.Prefill(1));
  CHECK(worker.links.WaitFor<scheduler::TaskRefused>(Task(1)));
  CHECK(worker.Idle());
}

TEST_CASE("WorkerLoop: patches that come after their task was released are not kept",
          "[services][worker]") {
  ScriptedWorker worker;
  worker.links.answer_pulls = false;
  worker.Tell(scheduler::AssignEncode{.task = Task(1),
                                      .request = {testing::kGatewayId, 1},
                                      .gateway = testing::kGateway,
                                      .num_tokens = 4,
                                      .patches = 16,
                                      .consumer = Task(2),
                                      .consumer_worker = {testing::kPeer, "peer:1"}});
  REQUIRE(worker.links.WaitForPull(Task(1)));
  worker.Tell(scheduler::ReleaseTask{Task(1)});
  REQUIRE(worker.links.WaitForDrop(Task(1)));
  worker.loop.PostMedia(Task(1), engine::EncodeInput{{1, 4, 4}, {}}, base::Duration(1));
  REQUIRE(worker.loop.ReportForHello().has_value());
  CHECK(worker.executor.num_patches() == 0);
}

TEST_CASE("WorkerLoop: the connection to a lost peer is given up, whatever was under way",
          "[services][worker]") {
  ScriptedWorker worker;
  worker.loop.PostPeerLost(testing::kPeer);
  REQUIRE(worker.links.WaitForForgotten(testing::kPeer));
  REQUIRE(worker.loop.ReportForHello().has_value());
  std::atomic<int> aborted{0};
  worker.endpoint->Receive(testing::kPeer, 1, {.bytes = 10}, [&](const absl::Status& status) {
    if (status.code() == absl::StatusCode::kAborted) ++aborted;
  });
  while (worker.hub.RunPending() > 0) {
  }
  CHECK(aborted == 1);
}

TEST_CASE("WorkerLoop: a stopped loop says so instead of waiting", "[services][worker]") {
  ScriptedWorker worker;
  worker.loop.Stop();
  CHECK_FALSE(worker.loop.ReportForHello().has_value());
  worker.Tell(worker.Prefill(1));  // dropped
  CHECK(worker.loop.WaitUntilIdle(worker.clock.Now() + std::chrono::milliseconds(1)));
}

// One of the neighbours: what it may post at any time, for tasks that exist or not.
void Pester(ScriptedWorker* worker, uint64_t seed, const std::atomic<bool>* stop) {
  base::SeededRandom random(seed);
  while (!*stop) {
    const uint64_t task = 1 + random.Below(6);
    switch (random.Below(10)) {
      case 0:
        worker->Tell(worker->Prefill(task));
        break;
      case 1:
        worker->HandOver(task, task, task + 10);
        break;
      case 2:
        worker->Tell(scheduler::ReleaseTask{Task(task + 10 * random.Below(2))});
        break;
      case 3:
        worker->loop.PostPulled(Task(task), absl::UnavailableError("gone"));
        break;
      case 4:
        worker->loop.PostTokenStreamReset(testing::kGatewayId);
        break;
      case 5:
        worker->loop.PostTransfer(testing::kPeer,
                                  {scheduler::Offer{{Task(task), Task(task + 10)}, "model"}});
        break;
      case 6:
        worker->loop.PostMedia(Task(task), absl::InvalidArgumentError("bad"), base::Duration(1));
        break;
      case 7:
        worker->loop.ReportForHello();
        break;
      case 8:
        worker->loop.PostPeerLost(Incarnation(2000 + random.Below(3)));
        break;
      default:
        worker->loop.WaitUntilIdle(worker->clock.Now());
        worker->hub.RunPending();
    }
  }
}

TEST_CASE("WorkerLoop: stops at any moment while its neighbours post", "[services][worker][tsan]") {
  const uint64_t seed = GENERATE(range(1, 9));
  CAPTURE(seed);
  std::atomic<bool> stop{false};
  ScriptedWorker worker;
  std::vector<std::thread> neighbours;
  for (uint64_t i = 0; i < 4; ++i) {
    neighbours.emplace_back(Pester, &worker, seed * 100 + i, &stop);
  }
  // Let as many rounds of the loop pass as the seed says.
  for (uint64_t i = 0; i < seed * 4; ++i) worker.loop.ReportForHello();
  worker.loop.Stop();
  stop = true;
  for (std::thread& neighbour : neighbours) neighbour.join();
  CHECK_FALSE(worker.loop.ReportForHello().has_value());
}

}  // namespace
}  // namespace triptych::services
