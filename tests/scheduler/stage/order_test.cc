// Defended: the order of work on one worker. Sequences beyond the rows of a step get their turn, a
// prompt goes on beside decodes, and memory is taken from the last by rank, whatever it does.

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>

#include "scheduler/stage/token_outbox.h"
#include "tests/scheduler/stage/walk.h"

namespace triptych::scheduler {
namespace {

using namespace testing;

// One worker of both stages; requests are placed with a rank of their own.
struct Ranked : StageFixture {
  FakeWorker* worker = nullptr;

  void Place(uint64_t number, Rank rank, int32_t prompt, int32_t answer) {
    FakeRequest& request = AddRequest(number, {LongText(prompt)}, answer);
    const TaskId prefill = Task(100 * number), decode = Task(100 * number + 1);
    Send(*worker, AssignPrefill{.task = prefill,
                                .request = request.id,
                                .gateway = kGateway,
                                .prompt_tokens = prompt,
                                .priority = rank.priority,
                                .age = rank.age});
    Send(*worker, AssignDecode{.task = decode,
                               .request = request.id,
                               .gateway = kGateway,
                               .prompt_tokens = prompt,
                               .producer = prefill,
                               .producer_worker = worker->address,
                               .priority = rank.priority,
                               .age = rank.age});
    Send(*worker, BindConsumer{prefill, decode, worker->address});
  }
  // Everything but engine steps.
  void Deliver() {
    while (!events.empty()) RunEvent(0);
  }
  void Steps(int count) {
    for (int i = 0; i < count && !worker->engine->lanes[0].empty(); ++i) {
      FinishStep(*worker);
      Deliver();
    }
  }
};

}  // namespace

TEST_CASE("StageScheduler: with more sequences than rows, each gets its turn",
          "[scheduler][stage][order]") {
  const auto [rows, sequences] = GENERATE(std::pair(2, 5), std::pair(8, 32));
  CAPTURE(rows, sequences);
  Ranked fixture;
  fixture.config.max_batch = rows;
  fixture.config.step_tokens = 1024;
  fixture.config.profile.max_sequences = 2 * sequences;
  fixture.config.profile.kv_blocks = 32 * sequences;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  for (int i = 1; i <= sequences; ++i) {
    const auto number = static_cast<uint64_t>(i);
    fixture.Place(number, {0, number}, 4, 300);
  }
  fixture.Deliver();
  fixture.Steps(250);
  size_t least = 1000, most = 0;
  for (const auto& [number, request] : fixture.requests) {
    least = std::min(least, request.tokens.size());
    most = std::max(most, request.tokens.size());
  }
  CHECK(least * 2 >= most);
  CHECK(least > 20);
}

TEST_CASE("StageScheduler: a higher priority has its row in every step",
          "[scheduler][stage][order]") {
  Ranked fixture;
  fixture.config.max_batch = 2;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  for (uint64_t i = 1; i <= 4; ++i) fixture.Place(i, {i == 4 ? 1 : 0, i}, 4, 60);
  fixture.Deliver();
  fixture.Steps(50);
  for (uint64_t i = 1; i <= 3; ++i) {
    CHECK(fixture.requests.at(4).tokens.size() > 2 * fixture.requests.at(i).tokens.size());
  }
}

TEST_CASE("StageScheduler: a prompt goes on beside decodes that fill every step",
          "[scheduler][stage][order]") {
  const int32_t rows = GENERATE(1, 4);
  CAPTURE(rows);
  Ranked fixture;
  fixture.config.max_batch = rows;
  fixture.config.step_tokens = 8;
  fixture.config.profile.kv_blocks = 256;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  for (uint64_t i = 1; i <= 6; ++i) fixture.Place(i, {0, i}, 4, 200);
  fixture.Deliver();
  fixture.Steps(30);
  fixture.Place(7, {0, 7}, 32, 2);
  fixture.Deliver();
  // Eight tokens a step alone; half of them at least, or every second step.
  fixture.Steps(2 * 4 + 5);
  CHECK(fixture.requests.at(7).tokens.size() > 0);
}

TEST_CASE("StageScheduler: memory is taken from the last by rank, not from the latest task",
          "[scheduler][stage][order]") {
  Ranked fixture;
  fixture.config.profile.kv_blocks = 9;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  // The second came back after a preemption: its tasks are the newest, its rank is not.
  fixture.Place(1, {0, 20}, 12, 18);
  fixture.Place(2, {0, 10}, 12, 18);
  fixture.Deliver();
  fixture.RunAll();
  const auto* failed = fixture.Last<TaskFailed>(*fixture.worker);
  REQUIRE(failed != nullptr);
  CHECK(failed->preempted);
  CHECK(failed->task.number / 100 == 1);
  CHECK(fixture.requests.at(2).tokens.size() == 18);
}

TEST_CASE("StageScheduler: whoever has nobody after it waits and is not thrown out",
          "[scheduler][stage][order]") {
  Ranked fixture;
  fixture.config.profile.kv_blocks = 9;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  fixture.Place(1, {0, 1}, 16, 2);  // holds more than it grows by
  fixture.Place(2, {0, 2}, 16, 18);
  fixture.Deliver();
  fixture.RunAll();
  CHECK(fixture.Last<TaskFailed>(*fixture.worker) == nullptr);
}

TEST_CASE("StageScheduler: a worker that drains decodes what it has prefilled",
          "[scheduler][stage][order]") {
  Ranked fixture;
  fixture.worker = &fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(1, {LongText(8)}, 6);
  fixture.Send(
      *fixture.worker,
      AssignPrefill{
          .task = Task(1), .request = request.id, .gateway = kGateway, .prompt_tokens = 8});
  fixture.RunAll();
  fixture.Send(*fixture.worker, DrainWorker{});
  fixture.Send(*fixture.worker, AssignDecode{.task = Task(2),
                                             .request = request.id,
                                             .gateway = kGateway,
                                             .prompt_tokens = 8,
                                             .producer = Task(1),
                                             .producer_worker = fixture.worker->address});
  fixture.RunAll();
  CHECK(request.tokens.size() == 6);
}

TEST_CASE("TokenOutbox: a reply to tokens does not acknowledge an error that is lost",
          "[scheduler][stage]") {
  const RequestId request{Incarnation(1), 1};
  TokenOutbox outbox({.request = request, .epoch = OutputEpoch(1)}, kGateway, 0);
  outbox.Push({.token = 5});
  REQUIRE(outbox.TakeUnsent()->tokens.size() == 1);
  outbox.Fail(absl::InternalError("numerical_error"));
  REQUIRE_FALSE(outbox.TakeUnsent()->error.ok());
  TokenReply reply{.request = request, .epoch = OutputEpoch(1), .next_index = 1};
  outbox.OnReply(reply);
  CHECK(outbox.acknowledged() == 1);
  CHECK_FALSE(outbox.concluded());
  outbox.Rewind();  // the stream broke with the error on it
  const auto again = outbox.TakeUnsent();
  REQUIRE(again.has_value());
  CHECK_FALSE(again->error.ok());
  reply.ended = true;
  outbox.OnReply(reply);
  CHECK(outbox.concluded());
}

}  // namespace triptych::scheduler
