// Defended: the scheduler's streams. A lost worker may not come back and the others are told; a
// scheduler that steps down or stops loses nobody; every call ends.

#include "services/scheduler/scheduler_service.h"

#include <catch2/catch.hpp>

#include "base/random.h"
#include "services/convert/worker_messages.h"
#include "tests/services/runtime/scripted_scheduler.h"
#include "tests/support/plain_channel.h"

namespace triptych::services {
namespace {

using testing::ClientEnd;
using testing::Inbox;

// The scheduler process without its main.
class Process {
 public:
  explicit Process(base::Duration recovery_wait = std::chrono::milliseconds(1))
      : core(Config(recovery_wait), scheduler::Incarnation(77), clock, log, metrics) {}
  ~Process() { server.reset(); }

  void WaitRecovered() {
    v1::ClusterSnapshot snapshot;
    const auto stub = v1::Cluster::NewStub(triptych::testing::PlainChannel(server->address()));
    for (int i = 0; i < 1000; ++i) {
      grpc::ClientContext context;
      base::SetDeadline(std::chrono::seconds(10), &context);
      REQUIRE(stub->GetSnapshot(&context, {}, &snapshot).ok());
      if (!snapshot.recovering()) return;
    }
    FAIL("it recovers for ever");
  }

  base::RealClock clock;
  base::StreamLogger log{clock, "test", base::LogLevel::kError};
  base::Registry registry;
  SchedulerMetrics metrics{&registry};
  SchedulerCore core;
  SchedulerService control{&core, &log};
  ClusterService cluster{&core, {"scheduler", "", 1}};
  std::unique_ptr<RpcServer> server =
      *RpcServer::Start("127.0.0.1:0", base::RpcAudience::kInternal,
                        grpc::InsecureServerCredentials(), {&control, &cluster});

 private:
  static scheduler::ClusterConfig Config(base::Duration recovery_wait) {
    scheduler::ClusterConfig config;
    config.recovery_wait = recovery_wait;
    config.silent_after = std::chrono::seconds(100);
    return config;
  }
};

// A worker's end of a control stream.
class Worker {
 public:
  Worker(const Process& process, uint64_t incarnation)
      : incarnation_(incarnation),
        stub_(v1::Scheduler::NewStub(triptych::testing::PlainChannel(process.server->address()))) {
    v1::Envelope envelope;
    envelope.set_sender_incarnation(incarnation);
    stream =
        ClientEnd::Open([this](grpc::ClientContext* context,
                               auto* reactor) { stub_->async()->WorkerControl(context, reactor); },
                        envelope,
                        [this](v1::SchedulerToWorkerBatch& batch) {
                          for (const auto& message : batch.messages()) {
                            if (message.has_welcome())
                              welcomes.Add(batch.envelope().scheduler().term());
                            if (message.has_peer_gone())
                              gone.Add(message.peer_gone().incarnation());
                          }
                        },
                        [this](const grpc::Status& status) { closed.Add(status.error_code()); });
  }
  ~Worker() {
    stream->Close();
    closed.WaitForCount(1);
  }

  void SayHello(uint64_t highest_term = 0, std::vector<scheduler::Incarnation> lost_peers = {},
                const std::string& fingerprint = "model") {
    scheduler::WorkerHello hello;
    hello.lost_peers = std::move(lost_peers);
    hello.profile.name = "worker" + std::to_string(incarnation_);
    hello.profile.roles.bits = 7;
    hello.profile.fingerprint = fingerprint;
    hello.profile.kv_block_tokens = 16;
    hello.profile.kv_blocks = 100;
    hello.highest_seen.term = highest_term;
    v1::WorkerToScheduler message;
    *message.mutable_hello() = ToProto(hello);
    stream->Send(std::move(message));
  }

  Inbox<uint64_t> welcomes, gone;
  Inbox<grpc::StatusCode> closed;
  std::shared_ptr<ClientEnd> stream;

 private:
  const uint64_t incarnation_;
  const std::unique_ptr<v1::Scheduler::Stub> stub_;
};

TEST_CASE("SchedulerService: a lost worker is told to the others and may not come back",
          "[services][scheduler]") {
  Process process;
  Worker other(process, 2);
  other.SayHello();
  REQUIRE(other.welcomes.WaitForCount(1));
  {
    Worker worker(process, 1);
    worker.SayHello();
    REQUIRE(worker.welcomes.WaitForCount(1));
  }
  REQUIRE(other.gone.WaitForCount(1));
  CHECK(other.gone.last() == 1);
  Worker again(process, 1);
  again.SayHello();
  REQUIRE(again.closed.WaitForCount(1));
  CHECK(again.closed.last() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(again.welcomes.size() == 0);
}

TEST_CASE("SchedulerService: whom an earlier scheduler gave up stays lost under the next",
          "[services][scheduler]") {
  Process process(std::chrono::minutes(10));
  Worker here_first(process, 1);
  here_first.SayHello();
  REQUIRE(here_first.welcomes.WaitForCount(1));
  Worker witness(process, 2);
  witness.SayHello(0, {scheduler::Incarnation(1), scheduler::Incarnation(3)});
  REQUIRE(witness.welcomes.WaitForCount(1));
  REQUIRE(here_first.closed.WaitForCount(1));
  CHECK(here_first.closed.last() == grpc::StatusCode::FAILED_PRECONDITION);
  Worker later(process, 3);
  later.SayHello();
  REQUIRE(later.closed.WaitForCount(1));
  CHECK(later.closed.last() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(later.welcomes.size() == 0);
}

// By a word of its own a worker could otherwise end every other.
TEST_CASE("SchedulerService: who comes late and has given up a living worker is itself given up",
          "[services][scheduler][security]") {
  Process process;
  Worker here_first(process, 1);
  here_first.SayHello();
  REQUIRE(here_first.welcomes.WaitForCount(1));
  process.WaitRecovered();
  Worker late(process, 2);
  late.SayHello(0, {scheduler::Incarnation(1)});
  REQUIRE(late.closed.WaitForCount(1));
  CHECK(late.closed.last() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(late.welcomes.size() == 0);
  CHECK(here_first.closed.size() == 0);
  Worker again(process, 2);
  again.SayHello();
  REQUIRE(again.closed.WaitForCount(1));
  CHECK(again.closed.last() == grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_CASE("SchedulerService: fingerprints without end are refused, and make way when unused",
          "[services][scheduler][security]") {
  Process process;
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint64_t i = 1; i <= 64; ++i) {
    workers.push_back(std::make_unique<Worker>(process, i));
    workers.back()->SayHello(0, {}, "model " + std::to_string(i));
    REQUIRE(workers.back()->welcomes.WaitForCount(1));
  }
  {
    Worker more(process, 100);
    more.SayHello(0, {}, "one more");
    REQUIRE(more.closed.WaitForCount(1));
    CHECK(more.closed.last() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(more.welcomes.size() == 0);
  }
  Worker same(process, 101);
  same.SayHello(0, {}, "model 7");
  REQUIRE(same.welcomes.WaitForCount(1));
  workers.clear();
  REQUIRE(same.gone.WaitForCount(64));
  Worker after(process, 102);
  after.SayHello(0, {}, "one more");
  CHECK(after.welcomes.WaitForCount(1));
}

TEST_CASE("SchedulerService: a scheduler that steps down asks for hellos and loses nobody",
          "[services][scheduler]") {
  Process process;
  Worker first(process, 1);
  first.SayHello();
  REQUIRE(first.welcomes.WaitForCount(1));
  // Past recovery: a higher term means that it is not the newest scheduler.
  process.WaitRecovered();
  Worker second(process, 2);
  second.SayHello(/*highest_term=*/50);
  REQUIRE(second.welcomes.WaitForCount(1));
  CHECK(second.welcomes.last() == 51);
  REQUIRE(first.closed.WaitForCount(1));
  CHECK(first.closed.last() == grpc::StatusCode::UNAVAILABLE);
  Worker again(process, 1);
  again.SayHello(50);
  REQUIRE(again.welcomes.WaitForCount(1));
  CHECK(again.welcomes.last() == 51);
  CHECK(second.gone.size() == 0);
}

TEST_CASE("SchedulerService: a scheduler that stops tells of no loss", "[services][scheduler]") {
  auto process = std::make_unique<Process>();
  Worker first(*process, 1), second(*process, 2);
  first.SayHello();
  second.SayHello();
  REQUIRE(first.welcomes.WaitForCount(1));
  REQUIRE(second.welcomes.WaitForCount(1));
  process->core.Stop();
  first.stream->Close();
  REQUIRE(first.closed.WaitForCount(1));
  process.reset();
  REQUIRE(second.closed.WaitForCount(1));
  CHECK(second.gone.size() == 0);
}

TEST_CASE("SchedulerService: who has not said hello is not heard", "[services][scheduler]") {
  Process process;
  Worker worker(process, 1);
  worker.stream->Send(testing::Accepted(1));
  REQUIRE(worker.closed.WaitForCount(1));
  CHECK(worker.closed.last() == grpc::StatusCode::UNAUTHENTICATED);
  Worker nameless(process, 0);
  nameless.SayHello();
  REQUIRE(nameless.closed.WaitForCount(1));
  CHECK(nameless.closed.last() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("ClusterService: calls end when the core has, and a long watch does not hold the server",
          "[services][scheduler]") {
  Process process;
  const auto stub =
      v1::Cluster::NewStub(triptych::testing::PlainChannel(process.server->address()));
  grpc::ClientContext watching;
  v1::WatchRequest request;
  request.set_interval_ms(60'000);
  auto reader = stub->Watch(&watching, request);
  v1::ClusterSnapshot snapshot;
  REQUIRE(reader->Read(&snapshot));
  process.core.Stop();
  {
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(10), &context);
    CHECK(stub->GetSnapshot(&context, {}, &snapshot).error_code() == grpc::StatusCode::UNAVAILABLE);
  }
  {
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(10), &context);
    v1::DrainResponse response;
    CHECK(stub->Drain(&context, {}, &response).error_code() == grpc::StatusCode::UNAVAILABLE);
  }
  const base::TimePoint begin = process.clock.Now();
  process.server->Stop(std::chrono::milliseconds(10));
  CHECK(process.clock.Now() - begin < std::chrono::seconds(10));
}

}  // namespace
}  // namespace triptych::services
