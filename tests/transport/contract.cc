#include "tests/transport/contract.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <mutex>
#include <vector>

#include "base/random.h"

namespace triptych::testing {
namespace {

using transport::Transport;

// Counts callbacks of one operation; they may come from any thread.
class Outcome {
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
  absl::StatusCode code() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return statuses_.empty() ? absl::StatusCode::kUnknown : statuses_[0].code();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<absl::Status> statuses_;
};

std::vector<uint8_t> Bytes(size_t size, uint64_t seed) {
  base::SeededRandom random(seed);
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
  return bytes;
}

struct Piece {
  std::vector<uint8_t> bytes;
  base::MemoryRef staging, landing;
  Outcome sent, received;
  bool Done() const { return sent.count() > 0 && received.count() > 0; }
};

class Contract {
 public:
  explicit Contract(const TransportPairFactory& make) : pair_(make()) {}
  ~Contract() { pair_.reset(); }

  void Send(Piece& piece, uint64_t sequence) {
    pair_->a().Send(pair_->b_id(), pair_->b_address(), sequence, piece.staging, piece.sent.Done());
  }
  void Receive(Piece& piece, uint64_t sequence) {
    pair_->b().Receive(pair_->a_id(), sequence, piece.landing, piece.received.Done());
  }
  Piece& NewPiece(size_t size) { return NewPiece(size, size); }
  Piece& NewPiece(size_t size, size_t landing) {
    Piece& piece = pieces_.emplace_back();
    piece.bytes = Bytes(size, pieces_.size());
    piece.staging = pair_->NewStaging(size);
    piece.landing = pair_->NewLanding(landing);
    pair_->Write(piece.staging, piece.bytes);
    return piece;
  }
  bool Finish() {
    return pair_->RunUntil([this] {
      for (const Piece& piece : pieces_) {
        if (!piece.Done()) return false;
      }
      return true;
    });
  }
  void CheckArrived(const Piece& piece) {
    CHECK(piece.sent.code() == absl::StatusCode::kOk);
    CHECK(piece.received.code() == absl::StatusCode::kOk);
    CHECK(piece.sent.count() == 1);
    CHECK(piece.received.count() == 1);
    CHECK(piece.bytes == pair_->Read(piece.landing));
  }

  TransportPair& pair() { return *pair_; }
  std::deque<Piece>& pieces() { return pieces_; }

 private:
  std::deque<Piece> pieces_;  // outlive the pair, whose callbacks write into them
  std::unique_ptr<TransportPair> pair_;
};

void CheckMoves(const TransportPairFactory& make) {
  SECTION("a piece of any size arrives whole") {
    Contract c(make);
    uint64_t sequence = 0;
    for (size_t size : {size_t{1}, size_t{4096}, (size_t{1} << 20) + 1, size_t{3} << 20}) {
      Piece& piece = c.NewPiece(size);
      c.Receive(piece, ++sequence);
      c.Send(piece, sequence);
    }
    REQUIRE(c.Finish());
    for (const Piece& piece : c.pieces()) c.CheckArrived(piece);
  }
  SECTION("the sender may be early") {
    Contract c(make);
    Piece& piece = c.NewPiece(100000);
    c.Send(piece, 1);
    c.pair().RunAWhile();
    CHECK(piece.received.count() == 0);
    c.Receive(piece, 1);
    REQUIRE(c.Finish());
    c.CheckArrived(piece);
  }
  SECTION("pieces pair by sequence, many in flight") {
    Contract c(make);
    for (uint64_t i = 1; i <= 40; ++i) c.Receive(c.NewPiece(1000 + i), i);
    for (uint64_t i = 1; i <= 40; ++i) c.Send(c.pieces()[i - 1], i);
    REQUIRE(c.Finish());
    for (const Piece& piece : c.pieces()) c.CheckArrived(piece);
  }
  SECTION("a size alone can be sent") {
    Contract c(make);
    Outcome sent, received;
    const base::MemoryRef declared{.bytes = 1 << 20};
    c.pair().b().Receive(c.pair().a_id(), 1, declared, received.Done());
    c.pair().a().Send(c.pair().b_id(), c.pair().b_address(), 1, declared, sent.Done());
    REQUIRE(c.pair().RunUntil([&] { return sent.count() > 0 && received.count() > 0; }));
    CHECK(received.code() == absl::StatusCode::kOk);
  }
}

// Of the back ends that move host memory.
void CheckDeviceMemoryRefused(const TransportPairFactory& make) {
  SECTION("a device's memory is refused and not read") {
    Contract c(make);
    Outcome sent, received;
    const base::MemoryRef device{.data = reinterpret_cast<void*>(uintptr_t{4096}),
                                 .bytes = 64,
                                 .space = base::MemorySpace::kCuda};
    c.pair().b().Receive(c.pair().a_id(), 1, device, received.Done());
    c.pair().a().Send(c.pair().b_id(), c.pair().b_address(), 1, device, sent.Done());
    REQUIRE(c.pair().RunUntil([&] { return sent.count() > 0 && received.count() > 0; }));
    CHECK(sent.code() == absl::StatusCode::kFailedPrecondition);
    CHECK(received.code() == absl::StatusCode::kFailedPrecondition);
  }
}

void CheckFaults(const TransportPairFactory& make) {
  SECTION("sizes that differ lose that piece alone") {
    Contract c(make);
    Piece& bad = c.NewPiece(1000, 999);
    Piece& good = c.NewPiece(500);
    c.Receive(bad, 1);
    c.Receive(good, 2);
    c.Send(bad, 1);
    c.Send(good, 2);
    REQUIRE(c.Finish());
    CHECK(bad.received.code() == absl::StatusCode::kDataLoss);
    c.CheckArrived(good);
  }
  SECTION("abort completes what is posted, and what is posted later") {
    Contract c(make);
    Piece& posted = c.NewPiece(10);
    Piece& later = c.NewPiece(10);
    c.Receive(posted, 1);
    c.pair().b().Abort(c.pair().a_id());
    c.Receive(later, 2);
    REQUIRE(c.pair().RunUntil(
        [&] { return posted.received.count() == 1 && later.received.count() == 1; }));
    CHECK(posted.received.code() == absl::StatusCode::kAborted);
    CHECK(later.received.code() == absl::StatusCode::kAborted);
  }
  SECTION("an aborted sender completes too") {
    Contract c(make);
    Piece& piece = c.NewPiece(10);
    c.pair().a().Abort(c.pair().b_id());
    c.Send(piece, 1);
    REQUIRE(c.pair().RunUntil([&] { return piece.sent.count() == 1; }));
    CHECK(piece.sent.code() == absl::StatusCode::kAborted);
  }
  SECTION("a peer that is gone is told as UNAVAILABLE") {
    Contract c(make);
    Piece& piece = c.NewPiece(8 << 20);
    c.pair().KillB();
    c.Send(piece, 1);
    REQUIRE(c.pair().RunUntil([&] { return piece.sent.count() == 1; }));
    CHECK(piece.sent.code() == absl::StatusCode::kUnavailable);
  }
}

}  // namespace

void TransportPair::Write(const base::MemoryRef& memory, const std::vector<uint8_t>& bytes) {
  std::copy(bytes.begin(), bytes.end(), memory.HostBytes().begin());
}

std::vector<uint8_t> TransportPair::Read(const base::MemoryRef& memory) {
  const absl::Span<uint8_t> bytes = memory.HostBytes();
  return {bytes.begin(), bytes.end()};
}

void CheckTransportContract(const TransportPairFactory& make, Reaches reaches) {
  CheckMoves(make);
  if (reaches == Reaches::kHostMemory) CheckDeviceMemoryRefused(make);
  CheckFaults(make);
}

}  // namespace triptych::testing
