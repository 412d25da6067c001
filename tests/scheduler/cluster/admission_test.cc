// Defended: what may wait is bounded in every cost, each refusal has its code, and whatever waits
// goes in the right order to a worker that has room.

#include "scheduler/cluster/admission.h"

#include "scheduler/cluster/waiting_queue.h"
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

TEST_CASE("WaitingQueue: priority first, then tenants in turn, then age",
          "[scheduler][cluster][policy]") {
  WaitingQueue queue;
  uint64_t arrival = 0;
  const auto push = [&](int32_t priority, const std::string& tenant) {
    ++arrival;
    queue.Push({priority, tenant, arrival, RequestId{Incarnation(1), arrival}});
  };
  for (const char* tenant : {"a", "a", "a", "b", "c"}) push(0, tenant);
  push(5, "z");
  std::vector<uint64_t> order;
  while (!queue.empty()) {
    order.push_back(queue.Front()->request.number);
    queue.Take();
  }
  CHECK(order == std::vector<uint64_t>{6, 1, 4, 5, 2, 3});
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
