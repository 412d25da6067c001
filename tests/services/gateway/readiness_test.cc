// Defended: a gateway says that it is ready, at each of its addresses alike, exactly while it has a
// scheduler and that one has a worker for every stage of the gateway's model. How: the whole
// gateway and the whole scheduler in one process, workers that say hello and do nothing.

#include <grpcpp/generic/generic_stub.h>

#include <catch2/catch.hpp>
#include <future>

#include "absl/strings/str_split.h"
#include "base/rpc.h"
#include "services/convert/worker_messages.h"
#include "services/gateway/gateway.h"
#include "services/runtime/http_call.h"
#include "services/scheduler/scheduler_service.h"
#include "tests/services/gateway/small_model.h"
#include "tests/services/runtime/scripted_scheduler.h"
#include "tests/support/eventually.h"
#include "tests/support/plain_channel.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using std::chrono::seconds;
using testing::ClientEnd;
using testing::Inbox;
using triptych::testing::Eventually;

// The scheduler process without its main.
struct Scheduler {
  base::RealClock clock;
  base::StreamLogger log{clock, "test", base::LogLevel::kError};
  base::Registry registry;
  SchedulerMetrics metrics{&registry};
  SchedulerCore core{{.silent_after = seconds(1000), .recovery_wait = std::chrono::milliseconds(1)},
                     scheduler::Incarnation(77),
                     clock,
                     log,
                     metrics};
  SchedulerService control{&core, &log};
  ClusterService cluster{&core, {"scheduler", "", 1}};
  std::unique_ptr<RpcServer> server =
      *RpcServer::Start("127.0.0.1:0", base::RpcAudience::kInternal,
                        grpc::InsecureServerCredentials(), {&control, &cluster});
};

class Worker {
 public:
  Worker(const std::string& address, uint64_t incarnation, const std::string& roles,
         const std::string& fingerprint)
      : stub_(v1::Scheduler::NewStub(triptych::testing::PlainChannel(address))) {
    v1::Envelope envelope;
    envelope.set_sender_incarnation(incarnation);
    stream_ =
        ClientEnd::Open([this](grpc::ClientContext* context,
                               auto* reactor) { stub_->async()->WorkerControl(context, reactor); },
                        envelope, [this](v1::SchedulerToWorkerBatch&) { heard_.Add(1); },
                        [this](const grpc::Status&) { closed_.Add(1); });
    scheduler::WorkerHello hello;
    hello.profile.name = "worker" + std::to_string(incarnation);
    REQUIRE(scheduler::ParseRoles(roles, &hello.profile.roles));
    hello.profile.fingerprint = fingerprint;
    hello.profile.kv_block_tokens = 16;
    hello.profile.kv_blocks = 100;
    v1::WorkerToScheduler message;
    *message.mutable_hello() = ToProto(hello);
    stream_->Send(std::move(message));
    REQUIRE(heard_.WaitForCount(1));
  }
  ~Worker() {
    stream_->Close();
    closed_.WaitForCount(1);
  }

 private:
  const std::unique_ptr<v1::Scheduler::Stub> stub_;
  Inbox<int> heard_, closed_;
  std::shared_ptr<ClientEnd> stream_;
};

class ReadyGateway {
 public:
  explicit ReadyGateway(const std::string& scheduler) {
    base::FlagSet flags("test");
    GatewayOptions options;
    options.Declare(&flags);
    const std::string scheduler_flag = "--scheduler=" + scheduler;
    const char* argv[] = {"test", scheduler_flag.c_str(), "--model=assets/triptych-16m",
                          "--insecure"};
    REQUIRE(flags.ParseFlags(4, argv).ok());
    auto started = Gateway::Start(options, clock_, &log_);
    REQUIRE(started.ok());
    gateway_ = *std::move(started);
    for (absl::string_view word : absl::StrSplit(gateway_->Addresses(), ' ')) {
      const std::pair<std::string, std::string> pair = absl::StrSplit(word, '=');
      addresses_[pair.first] = pair.second;
    }
  }

  // What all three say; requires that they come to agree on it.
  bool BecomesReady() { return Becomes(200, 1); }
  bool BecomesUnready() { return Becomes(503, 2); }
  void Drain() { gateway_->Drain(); }

 private:
  bool Becomes(int http, int health) {
    return Eventually(seconds(10), [&] {
      return Page("http") == http && Page("admin") == http && Health() == health;
    });
  }
  int Page(const char* port) {
    const absl::StatusOr<HttpReply> reply = HttpGet(addresses_.at(port), "/readyz", seconds(5));
    return reply.ok() ? reply->status : 0;
  }
  // The answer of grpc.health.v1, read by hand: field 1 is 1 when serving, 2 when not.
  int Health() {
    grpc::GenericStub stub(triptych::testing::PlainChannel(addresses_.at("grpc")));
    grpc::ClientContext context;
    base::SetDeadline(seconds(5), &context);
    grpc::ByteBuffer request, response;
    grpc::Slice nothing("");
    request = grpc::ByteBuffer(&nothing, 1);
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                   [&](const grpc::Status& status) { done.set_value(status); });
    grpc::Slice bytes;
    if (!done.get_future().get().ok() || !response.DumpToSingleSlice(&bytes).ok()) return 0;
    return bytes.size() == 2 && bytes.begin()[0] == 8 ? bytes.begin()[1] : 0;
  }

  const base::RealClock clock_;
  base::StreamLogger log_{clock_, "test", base::LogLevel::kError};
  std::map<std::string, std::string> addresses_;
  std::unique_ptr<Gateway> gateway_;  // borrows the clock and the log
};

TEST_CASE("Gateway: ready while a scheduler has a worker for every stage of its model",
          "[services][gateway]") {
  if (testing::SmallModel() == nullptr) {
    return triptych::testing::SkipTest("the shipped model is not here");
  }
  const std::string model = testing::SmallModel()->digest() + ".weights.format";
  auto scheduler = std::make_unique<Scheduler>();
  const std::string address = scheduler->server->address();
  ReadyGateway gateway(address);
  CHECK(gateway.BecomesUnready());
  const Worker both(address, 1, "encode+prefill", model);
  const Worker stranger(address, 2, "encode+prefill+decode", "another.weights.format");
  const Worker half(address, 6, "decode", testing::SmallModel()->digest() + ".others.format");
  CHECK(gateway.BecomesUnready());
  {
    const Worker decode(address, 3, "decode", model);
    CHECK(gateway.BecomesReady());
  }
  CHECK(gateway.BecomesUnready());
  const Worker decode(address, 4, "decode", model);
  CHECK(gateway.BecomesReady());
  const auto stub = v1::Cluster::NewStub(triptych::testing::PlainChannel(address));
  grpc::ClientContext context;
  base::SetDeadline(seconds(10), &context);
  v1::DrainRequest drain;
  drain.set_name("worker4");
  v1::DrainResponse drained;
  REQUIRE(stub->Drain(&context, drain, &drained).ok());
  CHECK(gateway.BecomesUnready());
  const Worker other(address, 5, "decode", model);
  CHECK(gateway.BecomesReady());
  gateway.Drain();
  CHECK(gateway.BecomesUnready());
}

TEST_CASE("Gateway: without its scheduler it is not ready", "[services][gateway]") {
  if (testing::SmallModel() == nullptr) {
    return triptych::testing::SkipTest("the shipped model is not here");
  }
  auto scheduler = std::make_unique<Scheduler>();
  ReadyGateway gateway(scheduler->server->address());
  {
    const Worker worker(scheduler->server->address(), 1, "encode+prefill+decode",
                        testing::SmallModel()->digest() + ".weights.format");
    CHECK(gateway.BecomesReady());
    scheduler->core.Stop();
    scheduler->server.reset();
  }
  CHECK(gateway.BecomesUnready());
}

}  // namespace
}  // namespace triptych::services
