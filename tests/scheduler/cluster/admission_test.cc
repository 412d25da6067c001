// Defended: what may wait is bounded in every cost, each refusal has its code, and whatever waits
// goes in the right order to a worker that has room.

#include "scheduler/cluster/admission.h"

#include "scheduler/cluster/fair_order.h"
#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

// A prefill worker for one prompt at a time, and a decode worker.
struct Narrow : ClusterFixture {
  explicit Narrow(ClusterConfig config = {}) : ClusterFixture(config) {
    WorkerProfile prefill = ProfileOf(3, "P");
    prefill.max_sequences = 1;
    Worker(prefill);
    Worker(5, "D");
    Gateway(kGateway);
  }
  // Lets the running prompt through, and says which request comes next.
  uint64_t Next() {
    End(Running());
    Pass(milliseconds(50));
    return Running();
  }
  uint64_t Running() { return workers[3].Last<AssignPrefill>().request.number; }
};

}  // namespace

TEST_CASE("CheckAdmission: each cost has its own bound", "[scheduler][cluster][policy]") {
  struct Row {
    const char* name;
    QueueCost queued;
    absl::StatusCode code;
  };
  const QueueLimits limits{.requests = 10,
                           .media_bytes = 10000,
                           .pixels = 1000000,
                           .patches = 5000,
                           .prefill_tokens = 4000};
  const Row row =
      GENERATE(Row{"empty", {}, absl::StatusCode::kOk},
               Row{"full but for one", {.requests = 9}, absl::StatusCode::kOk},
               Row{"count", {.requests = 10}, absl::StatusCode::kResourceExhausted},
               Row{"bytes", {.media_bytes = 9001}, absl::StatusCode::kResourceExhausted},
               Row{"pixels", {.pixels = 999999}, absl::StatusCode::kResourceExhausted},
               Row{"patches", {.patches = 4745}, absl::StatusCode::kResourceExhausted},
               Row{"tokens", {.prefill_tokens = 3917}, absl::StatusCode::kResourceExhausted});
  CAPTURE(row.name);
  CHECK(CheckAdmission(row.queued, ClusterFixture::Pictures(1, 1), limits).code() == row.code);
}

TEST_CASE("CheckAdmission: numbers that make no sense are INVALID_ARGUMENT",
          "[scheduler][cluster][policy]") {
  SubmitRequest submit = ClusterFixture::Pictures(1, 1);
  switch (GENERATE(0, 1, 2, 3)) {
    case 0:
      submit.prompt_tokens = 0;
      break;
    case 1:
      submit.items[0].patches = -1;
      break;
    case 2:
      submit.items[0].num_tokens = 1 << 30;
      break;
    case 3:
      submit.items[0].pixels = int64_t{1} << 62;
      break;
  }
  CHECK(CheckAdmission({}, submit, {}).code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("FairOrder: tenants in turn by what they cost; who was idle has saved nothing up",
          "[scheduler][cluster][policy]") {
  FairOrder order;
  std::map<std::pair<uint64_t, int>, std::string> by_age;
  int number = 0;
  const auto admit = [&](const std::string& tenant, int64_t cost) {
    const uint64_t age = order.Admit(tenant, cost);
    by_age[{age, ++number}] = tenant;
    return age;
  };
  for (const char* tenant : {"a", "a", "a", "b", "c"}) admit(tenant, 100);
  std::string turns;
  for (const auto& [key, tenant] : by_age) turns += tenant;
  CHECK(turns == "abcaa");
  order.Reach(150);
  CHECK(order.Admit("late", 100) == 150);
  CHECK(order.Admit("a", 100) == 301);
  // A cheap request is followed sooner.
  CHECK(order.Admit("cheap", 10) == 150);
  CHECK(order.Admit("cheap", 10) == 160);
}

TEST_CASE("ClusterScheduler: an admitted request keeps its age under the next scheduler",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  SubmitRequest running = cluster.Text(1), young = cluster.Text(2), old = cluster.Text(3);
  young.age = 5000;
  old.age = 4000;
  young.tokens_sent = old.tokens_sent = 1;
  cluster.Submit(running);
  cluster.Submit(young);
  cluster.Submit(old);
  cluster.Submit(cluster.Text(4));  // whoever is new comes after them
  CHECK(cluster.Next() == 3);
  CHECK(cluster.workers[3].Last<AssignPrefill>().age == 4000);
  CHECK(cluster.Next() == 2);
  CHECK(cluster.Next() == 4);
}

TEST_CASE("ClusterScheduler: a full queue refuses with a time to come back",
          "[scheduler][cluster][admission]") {
  Narrow cluster({.queue = {.requests = 2}});
  for (uint64_t i = 1; i <= 4; ++i) cluster.Submit(cluster.Text(i));
  CHECK(cluster.Failure(3) == absl::StatusCode::kOk);
  CHECK(cluster.Failure(4) == absl::StatusCode::kResourceExhausted);
  CHECK(cluster.failures[4][0].retry_after == seconds(1));
  CHECK(cluster.admissions.count(4) == 0);
}

TEST_CASE("ClusterScheduler: priority, then arrival; what comes back is in front",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  for (uint64_t i = 1; i <= 3; ++i) cluster.Submit(cluster.Text(i));
  SubmitRequest urgent = cluster.Text(4);
  urgent.priority = 1;
  cluster.Submit(urgent);
  cluster.Say(3, TaskRefused{cluster.workers[3].Last<AssignPrefill>().task, 256, 0, 1});
  cluster.workers[3].tasks.clear();
  cluster.Pass(milliseconds(50));
  CHECK(cluster.Running() == 4);
  CHECK(cluster.Next() == 1);
  CHECK(cluster.Next() == 2);
  CHECK(cluster.Next() == 3);
}

TEST_CASE("ClusterScheduler: a prompt that no worker could hold is refused at once",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  cluster.Submit(cluster.Text(1, 256 * 16 + 1));
  CHECK(cluster.Failure(1) == absl::StatusCode::kInvalidArgument);
  CHECK(cluster.failures[1][0].retry_after == base::Duration(0));
}

TEST_CASE("ClusterScheduler: another model's request is FAILED_PRECONDITION",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  SubmitRequest submit = cluster.Text(1);
  submit.fingerprint = "another";
  cluster.Submit(submit);
  CHECK(cluster.Failure(1) == absl::StatusCode::kFailedPrecondition);
}

const base::Duration kRoleGrace = ClusterConfig().role_grace;

TEST_CASE("ClusterScheduler: a missing role is waited for, then UNAVAILABLE",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  cluster.Submit(cluster.Pictures(1, 1));
  cluster.Pass(kRoleGrace - milliseconds(500));
  CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  if (GENERATE(false, true)) {
    cluster.Worker(1, "E");
    CHECK(cluster.workers[1].All<AssignEncode>().size() == 1);
    cluster.Pass(kRoleGrace);
    CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  } else {
    cluster.Pass(seconds(1));
    CHECK(cluster.Failure(1) == absl::StatusCode::kUnavailable);
    CHECK(cluster.failures[1][0].retry_after == seconds(1));
    cluster.Submit(cluster.Pictures(2, 1));  // now at once
    CHECK(cluster.Failure(2) == absl::StatusCode::kUnavailable);
    cluster.Submit(cluster.Text(3));
    CHECK(cluster.Failure(3) == absl::StatusCode::kOk);
  }
}

// A small worker and a large one for prompts, and a decode worker for either.
struct Sizes : ClusterFixture {
  const WorkerProfile large = WithBlocks(3, "P", 1000);
  Sizes() {
    Worker(large);
    Worker(4, "P");
    Worker(WithBlocks(5, "D", 1000));
    Gateway(kGateway);
  }
  static WorkerProfile WithBlocks(uint64_t incarnation, const std::string& roles, int32_t blocks) {
    WorkerProfile profile = ProfileOf(incarnation, roles);
    profile.kv_blocks = blocks;
    return profile;
  }
  static SubmitRequest Large(uint64_t number) { return Text(number, 300 * 16); }
};

TEST_CASE("ClusterScheduler: the only large worker may start again within the grace",
          "[scheduler][cluster][admission]") {
  Sizes cluster;
  cluster.Submit(cluster.Large(1));
  REQUIRE(cluster.Tasks(3) == 1);
  cluster.Lose(3);
  cluster.Submit(cluster.Large(2));
  cluster.Submit(cluster.Text(3));  // does not wait behind them
  CHECK(cluster.Tasks(4) == 1);
  CHECK(cluster.Counts().queued == 2);
  cluster.Pass(kRoleGrace - milliseconds(200));
  CHECK(cluster.failures.empty());
  if (GENERATE(false, true)) {
    cluster.Worker(Sizes::WithBlocks(6, "P", 1000));
    const auto placed = cluster.workers[6].All<AssignPrefill>();
    REQUIRE(placed.size() == 2);
    CHECK(placed[0].request.number == 1);
  } else {
    cluster.Pass(milliseconds(500));
    CHECK(cluster.Failure(1) == absl::StatusCode::kUnavailable);
    CHECK(cluster.Failure(2) == absl::StatusCode::kUnavailable);
    cluster.Submit(cluster.Large(7));
    CHECK(cluster.Failure(7) == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("ClusterScheduler: an answer that could outgrow every prefill worker is refused at once",
          "[scheduler][cluster][admission]") {
  Sizes cluster;
  SubmitRequest submit = cluster.Text(1);
  submit.max_tokens = 1000 * 16 - 100 + 1;  // the last token has no KV
  cluster.Submit(submit);
  CHECK(cluster.Failure(1) == absl::StatusCode::kOk);
  submit.request.number = 2;
  ++submit.max_tokens;
  cluster.Submit(submit);
  CHECK(cluster.Failure(2) == absl::StatusCode::kInvalidArgument);
  // Without a length that its client named it ends where memory does.
  submit.request.number = 3;
  submit.open_ended = true;
  cluster.Submit(submit);
  CHECK(cluster.Failure(3) == absl::StatusCode::kOk);
}

TEST_CASE("ClusterScheduler: prompts encode their own items while an older one waits for slots",
          "[scheduler][cluster][admission]") {
  ClusterFixture cluster({.encoder_backlog_tasks = 1});
  cluster.Worker(1, "E");
  cluster.Worker(2, "P");
  WorkerProfile both = ProfileOf(3, "EP");
  both.embedding_slots = 128;
  cluster.Worker(both);
  cluster.Worker(4, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Pictures(1, 1));  // on 1 for 2
  REQUIRE(cluster.Tasks(1) == 1);
  REQUIRE(cluster.Tasks(2) == 1);
  cluster.Submit(ClusterFixture::Pictures(2, 2));  // all slots of 3, one item in place
  REQUIRE(cluster.workers[3].All<AssignEncode>().size() == 1);
  cluster.Lose(1);
  // The first wants slots of 3, which the second holds until its other item is encoded.
  const auto prefill = cluster.workers[3].Last<AssignPrefill>().task;
  const auto encode = cluster.workers[3].Last<AssignEncode>().task;
  cluster.Say(3, ItemLanded{prefill, {0, encode}, 64});
  CHECK(cluster.workers[3].All<AssignEncode>().size() == 2);
}

TEST_CASE("ClusterScheduler: the last decode worker may be replaced within the grace",
          "[scheduler][cluster][admission]") {
  Narrow cluster;
  cluster.Submit(cluster.Text(1));
  cluster.Lose(5);
  CHECK(cluster.Counts().awaiting_decode == 1);
  if (GENERATE(false, true)) {
    cluster.Worker(6, "D");
    CHECK(cluster.Counts().handing_over == 1);
  } else {
    cluster.Pass(kRoleGrace + milliseconds(200));
    CHECK(cluster.Failure(1) == absl::StatusCode::kUnavailable);
    CHECK(cluster.Tasks(3) == 0);
  }
}

TEST_CASE("ClusterScheduler: text passes pictures that wait for an encoder",
          "[scheduler][cluster][admission]") {
  ClusterFixture cluster({.encoder_backlog_tasks = 1});
  cluster.Worker(1, "E");
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  for (uint64_t i = 1; i <= 3; ++i) cluster.Submit(ClusterFixture::Pictures(i, 1));
  cluster.Submit(ClusterFixture::Text(4));
  CHECK(cluster.Counts().queued == 2);
  CHECK(cluster.workers[3].Last<AssignPrefill>().request.number == 4);
}

TEST_CASE("ClusterScheduler: nothing overtakes a prompt that waits for memory",
          "[scheduler][cluster][admission]") {
  ClusterFixture cluster;
  cluster.Worker(3, "P");
  cluster.Worker(5, "D");
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Text(1, 2000));
  cluster.Submit(ClusterFixture::Text(2, 3000));
  cluster.Submit(ClusterFixture::Text(3, 20));
  CHECK(cluster.Counts().queued == 2);
}

}  // namespace triptych::scheduler
