// Defended: the gRPC transport keeps the transport contract between real servers, and what a broken
// or given-up connection leaves behind.

#include "transport/grpc/grpc_transport.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/rpc.h"
#include "tests/support/own_address.h"
#include "tests/transport/contract.h"

namespace triptych::transport {
namespace {

using scheduler::Incarnation;

constexpr Incarnation kA{11}, kB{12}, kC{13};

// A worker's transport service alone.
class MoveService final : public v1::Transfer::CallbackService {
 public:
  explicit MoveService(GrpcTransport* transport) : transport_(transport) {}
  grpc::ServerBidiReactor<v1::MoveChunk, v1::MoveClosed>* Move(
      grpc::CallbackServerContext*) override {
    return transport_->Move();
  }

 private:
  GrpcTransport* const transport_;
};

// One worker: its transport behind a server of its own, as in the worker process.
class Endpoint {
 public:
  explicit Endpoint(Incarnation self, const std::string& address = "127.0.0.1:0")
      : transport_(std::make_unique<GrpcTransport>(self, base::RpcSecurity::None())),
        service_(transport_.get()) {
    grpc::ServerBuilder builder;
    base::ConfigureServer(base::RpcAudience::kInternal, &builder);
    int port = 0;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    REQUIRE(server_ != nullptr);
    address_ = port > 1 ? "127.0.0.1:" + std::to_string(port) : address;
  }
  ~Endpoint() {
    server_->Shutdown(gpr_inf_past(GPR_CLOCK_MONOTONIC));
    server_->Wait();
  }
  GrpcTransport& transport() { return *transport_; }
  const std::string& address() const { return address_; }

 private:
  std::unique_ptr<GrpcTransport> transport_;
  MoveService service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// Long enough for what must not happen to happen, were it going to.
constexpr auto kNothingHappens = std::chrono::milliseconds(200);
constexpr auto kLong = std::chrono::seconds(10);

// Waits without sleeping for what another thread will have done.
bool WaitFor(const std::function<bool()>& done, std::chrono::milliseconds at_most) {
  const base::RealClock clock;
  const base::TimePoint end = clock.Now() + at_most;
  std::promise<void> never;
  const std::future<void> future = never.get_future();
  while (!done() && clock.Now() < end) {
    future.wait_for(std::chrono::milliseconds(1));
  }
  return done();
}

class GrpcPair final : public testing::TransportPair {
 public:
  Transport& a() override { return a_->transport(); }
  Transport& b() override { return b_->transport(); }
  Incarnation a_id() const override { return kA; }
  Incarnation b_id() const override { return kB; }
  std::string b_address() const override { return b_address_; }
  void KillB() override { b_.reset(); }
  bool RunUntil(const std::function<bool()>& done) override { return WaitFor(done, kLong); }
  // Nothing here says when there is no work left.
  void RunAWhile() override {
    WaitFor([] { return false; }, kNothingHappens);
  }

 private:
  std::unique_ptr<Endpoint> b_ = std::make_unique<Endpoint>(kB);
  std::unique_ptr<Endpoint> a_ = std::make_unique<Endpoint>(kA);
  const std::string b_address_ = b_->address();
};

// One operation's end; callbacks come from gRPC's threads, so it is declared before the endpoints.
class Ended {
 public:
  Transport::OnDone Done() {
    return [this](absl::Status status) {
      std::lock_guard<std::mutex> lock(mutex_);
      statuses_.push_back(std::move(status));
    };
  }
  size_t count() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return statuses_.size();
  }
  absl::StatusCode Wait() const {
    if (!WaitFor([this] { return count() > 0; }, kLong)) return absl::StatusCode::kUnknown;
    std::lock_guard<std::mutex> lock(mutex_);
    return statuses_[0].code();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<absl::Status> statuses_;
};

struct Piece {
  explicit Piece(size_t size, uint8_t fill = 7) : bytes(size, fill), landing(size, 0) {}
  std::vector<uint8_t> bytes, landing;
  Ended sent, received;

  int64_t size() const { return static_cast<int64_t>(bytes.size()); }
  base::MemoryRef memory() { return base::HostRef(absl::MakeSpan(bytes)); }
  void Send(Endpoint& from, Incarnation to, const std::string& address, uint64_t sequence) {
    from.transport().Send(to, address, sequence, memory(), sent.Done());
  }
  void Receive(Endpoint& at, Incarnation from, uint64_t sequence) {
    at.transport().Receive(from, sequence, base::HostRef(absl::MakeSpan(landing)), received.Done());
  }
};

TEST_CASE("GrpcTransport: keeps the transport contract", "[transport][grpc]") {
  testing::CheckTransportContract([] { return std::make_unique<GrpcPair>(); });
}

TEST_CASE("GrpcTransport: abort while bytes are under way completes each operation once",
          "[transport][grpc]") {
  std::vector<std::unique_ptr<Piece>> pieces;
  Endpoint a(kA), b(kB);
  for (uint64_t i = 1; i <= 6; ++i) {
    pieces.push_back(std::make_unique<Piece>(size_t{4} << 20));
    pieces.back()->Receive(b, kA, i);
    pieces.back()->Send(a, kB, b.address(), i);
  }
  // What a receive that was not completed ends with.
  std::set<absl::StatusCode> cut_off = {absl::StatusCode::kAborted};
  SECTION("by the receiver") { b.transport().Abort(kA); }
  SECTION("by the sender") {
    a.transport().Abort(kB);
    // The receiver may see the stream close before it aborts too.
    cut_off.insert(absl::StatusCode::kUnavailable);
    b.transport().Abort(kA);
  }
  SECTION("after the first piece") {
    CHECK(pieces[0]->received.Wait() == absl::StatusCode::kOk);
    b.transport().Abort(kA);
  }
  for (const auto& piece : pieces) {
    const absl::StatusCode received = piece->received.Wait();
    INFO(absl::StatusCodeToString(received));
    if (received == absl::StatusCode::kOk) {
      CHECK(piece->bytes == piece->landing);
    } else {
      CHECK(cut_off.contains(received));
    }
    const absl::StatusCode sent = piece->sent.Wait();
    CHECK((sent == absl::StatusCode::kOk || sent == absl::StatusCode::kAborted ||
           sent == absl::StatusCode::kUnavailable));
  }
  WaitFor([] { return false; }, kNothingHappens);
  for (const auto& piece : pieces) {
    CHECK(piece->received.count() == 1);
    CHECK(piece->sent.count() == 1);
  }
}

TEST_CASE("GrpcTransport: after an abort the landing memory is not written", "[transport][grpc]") {
  Piece piece(size_t{8} << 20);
  Endpoint a(kA), b(kB);
  piece.Receive(b, kA, 1);
  piece.Send(a, kB, b.address(), 1);
  b.transport().Abort(kA);
  if (piece.received.Wait() == absl::StatusCode::kAborted) {
    std::fill(piece.landing.begin(), piece.landing.end(), uint8_t{1});
    piece.sent.Wait();
    WaitFor([] { return false; }, kNothingHappens);
    CHECK(std::count(piece.landing.begin(), piece.landing.end(), uint8_t{1}) == piece.size());
  }
}

TEST_CASE("GrpcTransport: an aborted peer is not heard and not sent to again",
          "[transport][grpc]") {
  Piece piece(1000);
  Endpoint a(kA), b(kB);
  b.transport().Abort(kA);
  piece.Receive(b, kA, 1);
  CHECK(piece.received.Wait() == absl::StatusCode::kAborted);
  // The sender has not been told: its stream is refused.
  piece.Send(a, kB, b.address(), 1);
  piece.sent.Wait();
  WaitFor([] { return false; }, kNothingHappens);
  CHECK(std::count(piece.landing.begin(), piece.landing.end(), uint8_t{0}) == piece.size());
}

TEST_CASE("GrpcTransport: a receiver whose peer dies is told UNAVAILABLE, and others are not",
          "[transport][grpc]") {
  Piece first(100), lost(100), other(100);
  Endpoint b(kB), c(kC);
  {
    Endpoint a(kA);
    first.Receive(b, kA, 1);
    lost.Receive(b, kA, 2);
    first.Send(a, kB, b.address(), 1);
    REQUIRE(first.received.Wait() == absl::StatusCode::kOk);
  }
  CHECK(lost.received.Wait() == absl::StatusCode::kUnavailable);
  other.Receive(b, kC, 1);
  other.Send(c, kB, b.address(), 1);
  CHECK(other.received.Wait() == absl::StatusCode::kOk);
}

TEST_CASE("GrpcTransport: a stream that broke is opened again for the next piece",
          "[transport][grpc]") {
  Piece first(100), second(100);
  std::vector<std::unique_ptr<Ended>> sent;
  Endpoint a(kA);
  const std::string address = triptych::testing::OwnAddress();
  {
    Endpoint b(kB, address);
    first.Receive(b, kA, 1);
    first.Send(a, kB, address, 1);
    REQUIRE(first.received.Wait() == absl::StatusCode::kOk);
  }
  Endpoint b(kB, address);
  second.Receive(b, kA, 2);
  // Sends fail, or go into the broken connection, until the channel has found the peer again; a
  // repeated send is the machine's.
  REQUIRE(WaitFor(
      [&] {
        sent.push_back(std::make_unique<Ended>());
        a.transport().Send(kB, address, 2, second.memory(), sent.back()->Done());
        sent.back()->Wait();
        return second.received.count() > 0;
      },
      kLong));
  CHECK(second.received.Wait() == absl::StatusCode::kOk);
  CHECK(second.landing == second.bytes);
}

TEST_CASE("GrpcTransport: bytes for another incarnation are refused", "[transport][grpc]") {
  Piece piece(100);
  Ended sent;
  Endpoint a(kA), b(kB);
  piece.Receive(b, kA, 1);
  // An address that now belongs to b; the sender means c.
  a.transport().Send(kC, b.address(), 1, piece.memory(), sent.Done());
  sent.Wait();
  WaitFor([] { return false; }, kNothingHappens);
  CHECK(piece.received.count() == 0);
  b.transport().Abort(kA);
  CHECK(piece.received.Wait() == absl::StatusCode::kAborted);
}

TEST_CASE("GrpcTransport: a size alone where bytes were promised is DATA_LOSS",
          "[transport][grpc]") {
  Piece piece(100);
  Ended sent;
  Endpoint a(kA), b(kB);
  piece.Receive(b, kA, 1);
  a.transport().Send(kB, b.address(), 1, {.bytes = 100}, sent.Done());
  CHECK(piece.received.Wait() == absl::StatusCode::kDataLoss);
}

TEST_CASE("GrpcTransport: is destroyed with operations posted", "[transport][grpc]") {
  Piece piece(size_t{4} << 20), never(10);
  {
    Endpoint a(kA), b(kB);
    never.Receive(b, kA, 2);
    piece.Receive(b, kA, 1);
    piece.Send(a, kB, b.address(), 1);
  }
  CHECK(never.received.count() == 1);
  CHECK(piece.received.count() == 1);
  CHECK(piece.sent.count() == 1);
}

}  // namespace
}  // namespace triptych::transport
