// Defended: two workers that can share memory settle on cuda_ipc, each direction by its receiver,
// and pieces posted before that wait; whatever cannot be had falls back to gRPC at both ends, or is
// refused where nothing else is allowed. Over host memory and a gRPC that only notes.

#include "services/worker/path_pairing.h"

#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "tests/transport/cuda_ipc/host_copier.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using transport::Path;

constexpr int64_t kBytes = 1 << 16;

// Completes at once.
class NotedGrpc final : public transport::Transport {
 public:
  void Send(Incarnation, const std::string&, uint64_t, base::MemoryRef, OnDone done) override {
    ++sends;
    done(absl::OkStatus());
  }
  void Receive(Incarnation, uint64_t, base::MemoryRef, OnDone done) override {
    ++receives;
    done(absl::OkStatus());
  }
  void Abort(Incarnation) override {}
  std::atomic<int> sends{0}, receives{0};
};

struct Side {
  Side(uint64_t id, std::string host, PathPairing::Rule rule = PathPairing::Rule::kBest)
      : self(id), memory(kBytes), landing(kBytes), copier(memory) {
    static std::atomic<int> number{0};
    auto made = transport::IpcTransport::Start(
        {.self = self,
         .channel = absl::StrCat("triptych-pairing-", getpid(), "-", ++number),
         .staging = memory.ref(),
         .random = base::RandomBits64},
        clock, &copier);
    REQUIRE(made.ok());
    cuda_ipc = *std::move(made);
    router = std::make_unique<transport::PathRouter>(&grpc, cuda_ipc.get());
    pairing = std::make_unique<PathPairing>(rule, std::move(host),
                                            PathPairing::Parts{*router, *cuda_ipc, log, registry});
    pairing->set_tell([this](Incarnation) {
      if (other != nullptr) SayHello();
    });
  }
  v1::TransferHello Hello() {
    v1::TransferHello hello;
    hello.set_address("somewhere:1");
    hello.set_name(absl::StrCat("worker-", self.value()));
    *hello.mutable_paths() = pairing->PathsFor(other->self);
    return hello;
  }
  void SayHello() { other->pairing->OnHello(self, Hello()); }

  Incarnation self;
  base::RealClock clock;
  base::StreamLogger log{clock, "test", base::LogLevel::kError};
  base::Registry registry;
  testing::SharedMemory memory, landing;
  testing::HostCopier copier;
  NotedGrpc grpc;
  std::unique_ptr<transport::PathRouter> router;
  std::unique_ptr<PathPairing> pairing;
  std::unique_ptr<transport::IpcTransport> cuda_ipc;
  Side* other = nullptr;
};

struct TwoSides {
  explicit TwoSides(const std::string& host_of_b = "host",
                    PathPairing::Rule rule = PathPairing::Rule::kBest)
      : a(1, "host", rule), b(2, host_of_b, rule) {
    a.other = &b;
    b.other = &a;
  }
  ~TwoSides() {  // no thread may tell who is gone
    a.cuda_ipc.reset();
    b.cuda_ipc.reset();
  }
  // A piece from a to b; what both ends were told.
  std::pair<absl::StatusCode, absl::StatusCode> Move(uint64_t sequence) {
    std::promise<absl::Status> sent, received;
    b.router->Receive(a.self, sequence, b.landing.ref(),
                      [&](absl::Status s) { received.set_value(std::move(s)); });
    a.router->Send(b.self, "", sequence, a.memory.ref(),
                   [&](absl::Status s) { sent.set_value(std::move(s)); });
    return {sent.get_future().get().code(), received.get_future().get().code()};
  }
  Side a, b;
};

constexpr std::pair<absl::StatusCode, absl::StatusCode> kBothOk{absl::StatusCode::kOk,
                                                                absl::StatusCode::kOk};

TEST_CASE("PathPairing: workers of one host take each other's bytes by cuda_ipc",
          "[worker][transfer]") {
  TwoSides pair;
  pair.a.SayHello();
  pair.b.SayHello();
  CHECK(pair.Move(1) == kBothOk);
  CHECK(pair.b.grpc.receives == 0);
  CHECK(pair.a.grpc.sends == 0);
  CHECK(pair.b.registry.Serialize().find(
            "triptych_transfer_path{direction=\"in\",path=\"cuda_ipc\",peer=\"worker-1\"} 1") !=
        std::string::npos);
}

TEST_CASE("PathPairing: a piece posted before the hellos waits for the path",
          "[worker][transfer]") {
  TwoSides pair;
  std::promise<absl::Status> sent, received;
  pair.b.router->Receive(pair.a.self, 1, pair.b.landing.ref(),
                         [&](absl::Status s) { received.set_value(std::move(s)); });
  pair.a.router->Send(pair.b.self, "", 1, pair.a.memory.ref(),
                      [&](absl::Status s) { sent.set_value(std::move(s)); });
  pair.b.SayHello();
  pair.a.SayHello();
  CHECK(sent.get_future().get().ok());
  CHECK(received.get_future().get().ok());
  CHECK(pair.b.grpc.receives == 0);
}

TEST_CASE("PathPairing: elsewhere, or a peer that knows nothing of it, means gRPC",
          "[worker][transfer]") {
  SECTION("another host") {
    TwoSides pair("another");
    pair.a.SayHello();
    pair.b.SayHello();
    CHECK(pair.Move(1) == kBothOk);
    CHECK(pair.b.grpc.receives == 1);
    CHECK(pair.a.grpc.sends == 1);
  }
  SECTION("a hello without paths") {
    TwoSides pair;
    v1::TransferHello old;
    old.set_address("somewhere:1");
    pair.a.pairing->OnHello(pair.b.self, old);
    pair.b.pairing->OnHello(pair.a.self, old);
    CHECK(pair.Move(1) == kBothOk);
    CHECK(pair.b.grpc.receives == 1);
    CHECK(pair.a.grpc.sends == 1);
  }
}

TEST_CASE("PathPairing: a path that fails falls back at both ends", "[worker][transfer]") {
  TwoSides pair;
  v1::TransferHello hello = pair.a.Hello();
  SECTION("the token was lost") { hello.mutable_paths()->set_token("other"); }
  SECTION("nobody listens") { hello.mutable_paths()->set_channel("triptych-nobody"); }
  pair.b.pairing->OnHello(pair.a.self, hello);
  pair.b.SayHello();
  CHECK(pair.Move(1) == kBothOk);
  CHECK(pair.b.grpc.receives == 1);
  CHECK(pair.a.grpc.sends == 1);
}

TEST_CASE("PathPairing: where nothing else is allowed, nothing else is used",
          "[worker][transfer]") {
  TwoSides pair("another", PathPairing::Rule::kCudaIpcOnly);
  pair.a.SayHello();
  pair.b.SayHello();
  const std::pair refused{absl::StatusCode::kFailedPrecondition,
                          absl::StatusCode::kFailedPrecondition};
  CHECK(pair.Move(1) == refused);
  CHECK(pair.b.grpc.receives == 0);
}

TEST_CASE("PathPairing: a channel that broke goes on over gRPC", "[worker][transfer]") {
  TwoSides pair;
  pair.a.SayHello();
  pair.b.SayHello();
  REQUIRE(pair.Move(1) == kBothOk);
  std::promise<absl::Status> lost;
  pair.b.router->Receive(pair.a.self, 2, pair.b.landing.ref(),
                         [&](absl::Status s) { lost.set_value(std::move(s)); });
  pair.a.cuda_ipc->Abort(pair.b.self);
  CHECK(lost.get_future().get().code() == absl::StatusCode::kUnavailable);
  CHECK(pair.Move(3) == kBothOk);
  CHECK(pair.b.grpc.receives == 1);
}

}  // namespace
}  // namespace triptych::services
