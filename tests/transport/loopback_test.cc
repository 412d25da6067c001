// Defended: the loopback keeps the transport contract, and each of its faults does what it says.

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "tests/transport/contract.h"
#include "transport/loopback/loopback_transport.h"

namespace triptych::transport {
namespace {

using scheduler::Incarnation;

constexpr Incarnation kA{1}, kB{2};

class LoopbackPair final : public testing::TransportPair {
 public:
  explicit LoopbackPair(LoopbackHub::FaultHook hook = nullptr)
      : hub_(std::move(hook)), a_(hub_.Connect(kA)), b_(hub_.Connect(kB)) {}
  ~LoopbackPair() override {
    a_.reset();
    b_.reset();
    while (hub_.RunPending() > 0) {
    }
  }
  Transport& a() override { return *a_; }
  Transport& b() override { return *b_; }
  Incarnation a_id() const override { return kA; }
  Incarnation b_id() const override { return kB; }
  std::string b_address() const override { return "b"; }
  void KillB() override { b_.reset(); }
  bool RunUntil(const std::function<bool()>& done) override {
    while (!done() && hub_.RunPending() > 0) {
    }
    return done();
  }
  void RunAWhile() override {
    RunUntil([] { return false; });
  }

  LoopbackHub hub_;
  std::unique_ptr<LoopbackEndpoint> a_, b_;
};

struct OnePiece {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(100, 7);
  std::vector<uint8_t> landing = std::vector<uint8_t>(100, 0);
  std::vector<absl::Status> sent, received;

  void Post(LoopbackPair& pair, uint64_t sequence) {
    pair.b().Receive(kA, sequence, base::HostRef(absl::MakeSpan(landing)),
                     [this](absl::Status s) { received.push_back(std::move(s)); });
    pair.a().Send(kB, "b", sequence, base::HostRef(absl::MakeSpan(bytes)),
                  [this](absl::Status s) { sent.push_back(std::move(s)); });
  }
};

TEST_CASE("LoopbackTransport: keeps the transport contract", "[transport][loopback]") {
  testing::CheckTransportContract([] { return std::make_unique<LoopbackPair>(); });
}

TEST_CASE("LoopbackTransport: nothing is called before RunPending", "[transport][loopback]") {
  LoopbackPair pair;
  OnePiece piece;
  piece.Post(pair, 1);
  CHECK(piece.sent.empty());
  CHECK(pair.hub_.RunPending() == 2);
  CHECK(piece.received.size() == 1);
  CHECK(pair.hub_.RunPending() == 0);
}

TEST_CASE("LoopbackTransport: each fault does what it says", "[transport][loopback]") {
  LoopbackFault fault = LoopbackFault::kNone;
  LoopbackPair pair([&](const LoopbackOperation&) { return fault; });
  OnePiece piece;
  SECTION("delay holds a piece back") {
    fault = LoopbackFault::kDelay;
    piece.Post(pair, 1);
    CHECK(pair.hub_.RunPending() == 0);
    fault = LoopbackFault::kNone;
    CHECK(pair.hub_.RunPending() == 2);
    CHECK(piece.landing == piece.bytes);
  }
  SECTION("drop fails both sides") {
    fault = LoopbackFault::kDrop;
    piece.Post(pair, 1);
    pair.hub_.RunPending();
    CHECK(piece.sent.at(0).code() == absl::StatusCode::kUnavailable);
    CHECK(piece.received.at(0).code() == absl::StatusCode::kUnavailable);
  }
  SECTION("duplicate changes nothing") {
    fault = LoopbackFault::kDuplicate;
    piece.Post(pair, 1);
    pair.hub_.RunPending();
    CHECK(piece.received.size() == 1);
    CHECK(piece.landing == piece.bytes);
  }
  SECTION("corrupt flips a bit and says nothing") {
    fault = LoopbackFault::kCorrupt;
    piece.Post(pair, 1);
    pair.hub_.RunPending();
    CHECK(piece.received.at(0).ok());
    CHECK(piece.landing != piece.bytes);
  }
  SECTION("abort is the receiver's") {
    fault = LoopbackFault::kAbort;
    piece.Post(pair, 1);
    pair.hub_.RunPending();
    CHECK(piece.received.at(0).code() == absl::StatusCode::kAborted);
    CHECK(piece.sent.at(0).code() == absl::StatusCode::kUnavailable);
  }
}

TEST_CASE("LoopbackTransport: a piece that was received is dropped when it comes again",
          "[transport][loopback]") {
  LoopbackPair pair;
  OnePiece piece;
  piece.Post(pair, 1);
  pair.hub_.RunPending();
  pair.a().Send(kB, "b", 1, base::HostRef(absl::MakeSpan(piece.bytes)),
                [&](absl::Status s) { piece.sent.push_back(std::move(s)); });
  pair.hub_.RunPending();
  REQUIRE(piece.sent.size() == 2);
  CHECK(piece.sent[1].ok());
}

TEST_CASE("LoopbackTransport: threads may send, receive and run it at once",
          "[transport][loopback]") {
  LoopbackPair pair;
  constexpr int kPieces = 500;
  std::vector<OnePiece> pieces(kPieces);
  std::thread sender([&] {
    for (int i = 0; i < kPieces; ++i) {
      OnePiece& piece = pieces[static_cast<size_t>(i)];
      pair.a().Send(kB, "b", static_cast<uint64_t>(i) + 1,
                    base::HostRef(absl::MakeSpan(piece.bytes)),
                    [&piece](absl::Status s) { piece.sent.push_back(std::move(s)); });
    }
  });
  std::thread receiver([&] {
    for (int i = 0; i < kPieces; ++i) {
      OnePiece& piece = pieces[static_cast<size_t>(i)];
      pair.b().Receive(kA, static_cast<uint64_t>(i) + 1,
                       base::HostRef(absl::MakeSpan(piece.landing)),
                       [&piece](absl::Status s) { piece.received.push_back(std::move(s)); });
    }
  });
  std::thread runner([&] {
    for (int i = 0; i < 1000; ++i) pair.hub_.RunPending();
  });
  sender.join();
  receiver.join();
  runner.join();
  while (pair.hub_.RunPending() > 0) {
  }
  for (const OnePiece& piece : pieces) {
    REQUIRE(piece.sent.size() == 1);
    REQUIRE(piece.received.size() == 1);
    REQUIRE(piece.landing == piece.bytes);
  }
}

}  // namespace
}  // namespace triptych::transport
