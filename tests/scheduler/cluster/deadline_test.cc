// Defended: what would be answered after its deadline is refused when it comes, not when it is
// late; and nothing else is. How: workers whose reports say what a step takes.

#include "scheduler/cluster/forecast.h"
#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

// One prompt at a time, a second each; a token takes 10 ms beside each other answer.
struct Slow : ClusterFixture {
  enum class Speeds { kUnknown, kKnown };
  explicit Slow(Speeds speeds = Speeds::kKnown) {
    WorkerProfile prefill = ProfileOf(3, "P");
    prefill.max_sequences = 1;
    Worker(prefill);
    Worker(5, "D");
    Gateway(kGateway);
    if (speeds == Speeds::kKnown) {
      workers[3].load[1] = {.seconds_per_unit = 0.01};
      workers[5].load[2] = {.seconds_per_unit = 0.01};
    }
    Pass(milliseconds(200));
  }
  void SubmitWithin(uint64_t number, base::Duration left, int32_t priority = 0) {
    SubmitRequest submit = Text(number);
    submit.time_left = left;
    submit.priority = priority;
    Submit(submit);
  }
  // So many that wait for ever, one of them running.
  void Fill(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) Submit(Text(1 + i));
  }
};

TEST_CASE("Deadline: what would be answered too late is refused at once, and told when to come",
          "[scheduler][cluster][deadline]") {
  Slow cluster;
  cluster.Fill(6);
  cluster.SubmitWithin(100, seconds(4));
  REQUIRE(cluster.Failure(100) == absl::StatusCode::kResourceExhausted);
  const base::Duration retry_after = cluster.failures[100][0].retry_after;
  CHECK(retry_after >= seconds(1));
  CHECK(retry_after <= seconds(8));
  cluster.SubmitWithin(101, seconds(20));
  CHECK(cluster.Failure(101) == absl::StatusCode::kOk);
  // As soon as there is room, it is welcome.
  for (uint64_t number = 1; number <= 6; ++number) cluster.End(number);
  cluster.End(101);
  cluster.SubmitWithin(102, seconds(4));
  CHECK(cluster.Failure(102) == absl::StatusCode::kOk);
}

TEST_CASE("Deadline: what is behind it keeps no request from being admitted",
          "[scheduler][cluster][deadline]") {
  Slow cluster;
  cluster.Fill(6);
  cluster.SubmitWithin(100, seconds(4), /*priority=*/10);
  CHECK(cluster.Failure(100) == absl::StatusCode::kOk);
}

TEST_CASE("Deadline: nothing is refused for it where no load, or no speed, is to blame",
          "[scheduler][cluster][deadline]") {
  // It could not be in time alone: the client has said so.
  Slow idle;
  idle.SubmitWithin(100, milliseconds(300));
  CHECK(idle.Failure(100) == absl::StatusCode::kOk);
  Slow unknown(Slow::Speeds::kUnknown);
  unknown.Fill(100);
  unknown.SubmitWithin(200, milliseconds(300));
  CHECK(unknown.Failure(200) == absl::StatusCode::kOk);
  // None that has no deadline.
  Slow full;
  full.Fill(100);
  CHECK(full.failures.empty());
}

TEST_CASE("Deadline: an overloaded cluster answers in time what it admits",
          "[scheduler][cluster][deadline]") {
  Slow cluster;
  // Ten times what it can: a request every 100 ms, each to be answered within 4 s. Prompts end
  // after their second; the rest of an answer takes no time here.
  std::map<uint64_t, base::TimePoint> due;
  int answered = 0, late = 0;
  uint64_t number = 0, running = 0;
  base::TimePoint since = cluster.now;
  for (int step = 0; step < 600; ++step) {
    cluster.SubmitWithin(++number, seconds(4));
    if (cluster.failures.contains(number)) {
      CHECK(cluster.Failure(number) == absl::StatusCode::kResourceExhausted);
    } else {
      due[number] = cluster.now + seconds(4);
    }
    cluster.Pass(milliseconds(100));
    const auto assigned = cluster.workers[3].All<AssignPrefill>();
    if (assigned.empty()) continue;
    const uint64_t current = assigned.back().request.number;
    if (current != running) running = current, since = cluster.now;
    if (cluster.now - since < seconds(1) || !due.contains(running)) continue;
    cluster.now <= due[running] ? ++answered : ++late;
    due.erase(running);
    cluster.End(running);
    cluster.Drain();
    // The next begins at once.
    const auto next = cluster.workers[3].All<AssignPrefill>();
    running = next.back().request.number;
    since = cluster.now;
  }
  CHECK(late <= 3);
  CHECK(answered >= 54);  // of 60 s
}

}  // namespace
}  // namespace triptych::scheduler
