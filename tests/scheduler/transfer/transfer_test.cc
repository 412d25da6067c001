// Defended: an input lands exactly once, whole and from the right producer, or is given up by both
// sides; whatever a fault does to messages and pieces, all staging and landing memory comes back.
// How: a sender and a receiver joined by a channel that the test drives by hand.

#include <catch2/catch.hpp>

#include "tests/scheduler/transfer/pair.h"

namespace triptych::scheduler::testing {
namespace {

using std::chrono::milliseconds;

// Granted, two pieces of 10 tokens staged, nothing carried over after that.
void StageTwo(Pair& pair, const TransferKey& key) {
  pair.Expect(key, 20);
  pair.Offer(key, 20);
  pair.Settle();
  REQUIRE(pair.granted.size() == 1);
  REQUIRE(pair.Stage(key, 0, 0, 10, false));
  REQUIRE(pair.Stage(key, 1, 10, 20, true));
}

TEST_CASE("Transfer: pieces land, are acknowledged, and every buffer comes back",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  pair.Settle();
  REQUIRE(pair.delivered == std::vector<TransferKey>{key});
  REQUIRE(pair.received.size() == 1);
  CHECK(pair.received[0].consumer == key.consumer);
  CHECK(pair.received[0].producer == key.producer);
  REQUIRE(pair.received[0].first_token.has_value());
  CHECK(pair.received[0].first_token->token.token == 7);
  CHECK(pair.AtRest());
  CHECK(pair.sender.NextDeadline() == base::kNever);
  CHECK(pair.receiver.NextDeadline() == base::kNever);
}

TEST_CASE("Transfer: an early offer is parked and granted once it is expected",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Offer(key, 4);
  pair.Settle();
  CHECK(pair.granted.empty());
  CHECK(pair.receiver.num_parked() == 1);
  pair.Expect(key, 4);
  pair.Settle();
  CHECK(pair.granted.size() == 1);
  CHECK(pair.receiver.num_parked() == 0);
}

TEST_CASE("Transfer: what nobody expects is denied after a while and offered again",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Offer(key, 4);
  for (int i = 0; i < 4; ++i) {
    pair.Settle();
    pair.Wait(milliseconds(500));  // repeats of the offer, then the denial
  }
  CHECK(pair.receiver.num_parked() == 0);
  pair.Settle();
  CHECK(pair.failed.empty());
  pair.Expect(key, 4);
  pair.Wait(milliseconds(500));
  pair.Settle();
  CHECK(pair.granted.size() == 1);
}

TEST_CASE("Transfer: at most a bounded number of offers is parked", "[scheduler][transfer]") {
  Pair pair;
  for (int i = 0; i < kMaxParked + 10; ++i) {
    pair.Offer(Key(static_cast<uint64_t>(i) + 10, 2, 0), 4);
  }
  while (pair.CarryToReceiver()) {
  }
  CHECK(pair.receiver.num_parked() == kMaxParked);
  CHECK(pair.to_sender.size() == 10);
}

TEST_CASE("Transfer: an offer from another producer than the table names is not granted",
          "[scheduler][transfer]") {
  Pair pair;
  pair.Expect(Key(1, 2, 0), 4);
  pair.Offer(Key(5, 2, 0), 4);
  pair.Settle();
  CHECK(pair.granted.empty());
  // The table's entry may still be on its way.
  pair.receiver.Rebind(Task(2), {0, Task(5)}, pair.clock.Now());
  pair.Collect();
  pair.Settle();
  CHECK(pair.granted.size() == 1);
}

TEST_CASE("Transfer: an offer of another size or kind fails at its producer",
          "[scheduler][transfer]") {
  Pair pair;
  pair.Expect(Key(1, 2, 0), 4);
  pair.Offer(Key(1, 2, 0), 5);
  pair.Settle();
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].status.code() == absl::StatusCode::kInternal);
}

TEST_CASE("Transfer: an offer of another model fails at its producer", "[scheduler][transfer]") {
  Pair pair;
  pair.Expect(Key(1, 2, 0), 4);
  Offer offer{.key = Key(1, 2, 0),
              .fingerprint = "other",
              .kind = TransferKind::kEmbedding,
              .num_tokens = 4,
              .bytes = 40};
  pair.receiver.Handle(kProducerWorker, offer, pair.clock.Now());
  pair.Collect();
  REQUIRE(pair.to_sender.size() == 1);
  CHECK(std::get<Deny>(pair.to_sender[0]).reason == Deny::Reason::kWrongFingerprint);
}

TEST_CASE("Transfer: a piece that does not have the bytes of its range is denied",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Expect(key, 4);
  pair.Offer(key, 4);
  pair.Settle();
  const CacheRange whole{TransferKind::kEmbedding, 0, 4, 0, 0};
  const CacheRange beyond{TransferKind::kEmbedding, 2, 6, 0, 0};
  const CacheRange other{TransferKind::kKv, 0, 4, 0, 1};
  for (const Ready& bad : {Ready{.key = key, .range = whole, .bytes = 39},
                           Ready{.key = key, .range = beyond, .bytes = 40},
                           Ready{.key = key, .range = other, .bytes = 40},
                           Ready{.key = key, .index = -1, .range = whole, .bytes = 40}}) {
    pair.receiver.Handle(kProducerWorker, bad, pair.clock.Now());
    pair.Collect();
    REQUIRE(pair.to_sender.size() == 1);
    CHECK(std::get<Deny>(pair.to_sender[0]).reason == Deny::Reason::kMismatch);
    pair.to_sender.clear();
  }
  CHECK(pair.receives.empty());
}

TEST_CASE("Transfer: pieces that overlap are denied", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Expect(key, 4);
  pair.Offer(key, 4);
  pair.Settle();
  pair.Stage(key, 0, 0, 3, false);
  pair.Stage(key, 1, 2, 4, true);
  pair.Settle();
  CHECK(pair.received.empty());
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: every message may come twice", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  pair.Expect(key, 20);
  pair.Offer(key, 20);
  bool staged = false;
  for (int i = 0; i < 50; ++i) {
    if (!pair.to_receiver.empty()) pair.to_receiver.push_front(pair.to_receiver.front());
    pair.CarryToReceiver();
    pair.CarryToReceiver();
    if (!pair.to_sender.empty()) pair.to_sender.push_front(pair.to_sender.front());
    pair.CarryToSender();
    pair.CarryToSender();
    if (!pair.granted.empty() && !staged) {
      staged = true;
      pair.Stage(key, 0, 0, 10, false);
      pair.Stage(key, 1, 10, 20, true);
    }
    pair.MovePiece();
    pair.ImportAll();
  }
  CHECK(pair.granted.size() == 1);
  CHECK(pair.delivered.size() == 1);
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a message that is lost at any step is repeated by a timer",
          "[scheduler][transfer]") {
  // 0: offer, 1: grant, 2: ready, 3: go, 4: acknowledgement.
  for (int lost = 0; lost < 5; ++lost) {
    INFO("lost step " << lost);
    Pair pair;
    const TransferKey key = Key(1, 2);
    pair.Expect(key, 10);
    pair.Offer(key, 10);
    if (lost == 0) pair.LoseMessages();
    pair.CarryToReceiver();
    if (lost == 1) pair.LoseMessages();
    for (int i = 0; i < 3 && pair.granted.empty(); ++i) {
      pair.Settle();
      pair.Wait(kTransferRetry);
    }
    REQUIRE(pair.granted.size() == 1);
    REQUIRE(pair.Stage(key, 0, 0, 10, true));
    if (lost == 2) pair.LoseMessages();
    pair.CarryToReceiver();
    if (lost == 3) pair.LoseMessages();
    pair.CarryToSender();
    pair.MovePiece();
    if (lost == 4) pair.LoseMessages();
    for (int i = 0; i < 3; ++i) {
      pair.Settle();
      pair.Wait(kTransferRetry);
    }
    pair.Settle();
    CHECK(pair.delivered.size() == 1);
    CHECK(pair.received.size() == 1);
    CHECK(pair.AtRest());
  }
}

TEST_CASE("Transfer: a corrupt piece is sent again and only then let in", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  for (int i = 0; i < 4; ++i) pair.CarryToReceiver();
  for (int i = 0; i < 4; ++i) pair.CarryToSender();
  REQUIRE(pair.MovePiece(absl::OkStatus(), 1));
  CHECK(pair.landed.empty());
  pair.Settle();
  CHECK(pair.received.size() == 1);
  CHECK(pair.delivered.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a piece that is corrupt for ever fails the transfer",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Expect(key, 4);
  pair.Offer(key, 4);
  pair.Settle();
  pair.Stage(key, 0, 0, 4, true);
  for (int i = 0; i < 20; ++i) {
    while (pair.CarryToReceiver() || pair.CarryToSender()) {
    }
    pair.MovePiece(absl::OkStatus(), 1);
    pair.Wait(kTransferRetry);
  }
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].status.code() == absl::StatusCode::kDataLoss);
  pair.Settle();
  CHECK(pair.received.empty());
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a broken connection costs another try", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  for (int i = 0; i < 4; ++i) pair.CarryToReceiver();
  for (int i = 0; i < 4; ++i) pair.CarryToSender();
  REQUIRE(pair.MovePiece(absl::UnavailableError("reset")));
  pair.Settle();
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a send whose bytes never arrived is posted again", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, 0);
  pair.Expect(key, 4);
  pair.Offer(key, 4);
  pair.Settle();
  pair.Stage(key, 0, 0, 4, true);
  pair.CarryToReceiver();
  pair.CarryToSender();
  REQUIRE(pair.sends.size() == 1);
  pair.sends.clear();
  pair.sender.OnSent(kConsumerWorker, 1, absl::UnavailableError("no route"), pair.clock.Now());
  pair.Collect();
  CHECK_FALSE(pair.AtRest());
  pair.Wait(kTransferRetry);
  pair.Settle();
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a producer that cancels before Go gets its buffers back once told so",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  pair.sender.Cancel(key, pair.clock.Now());
  pair.Collect();
  CHECK(pair.num_buffers() == 2);  // a Go may be on its way
  pair.Settle();
  CHECK(pair.received.empty());
  CHECK(pair.failed.empty());
  CHECK(pair.delivered.empty());
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: after Go an operation completes, cancelled or not", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  pair.CarryToReceiver();
  pair.CarryToReceiver();
  REQUIRE(pair.receives.size() == 2);
  pair.sender.Cancel(key, pair.clock.Now());
  pair.Collect();
  const bool go_is_lost = GENERATE(false, true);
  if (go_is_lost) pair.to_sender.clear();
  while (pair.CarryToReceiver() || pair.CarryToSender()) {
  }
  CHECK(pair.sends.size() == 2);
  CHECK(pair.num_buffers() == 4);
  pair.Settle();
  CHECK(pair.AtRest());
  CHECK(pair.received.empty());
}

TEST_CASE("Transfer: an export that ends after its transfer is released", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  pair.Expect(key, 20);
  pair.Offer(key, 20);
  pair.Settle();
  PieceBuffer staged, dropped;
  REQUIRE(pair.Reserve(key, 10, &staged));
  REQUIRE(pair.Reserve(key, 10, &dropped));
  pair.sender.Cancel(key, pair.clock.Now());
  pair.Collect();
  CHECK(pair.num_buffers() == 2);
  pair.Staged(key, 0, 0, 10, false, staged);
  pair.sender.DropStaged(dropped.id);
  pair.Collect();
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a consumer that is over ends the transfer without an error",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  const int carried = GENERATE(0, 1, 2);
  for (int i = 0; i < carried; ++i) pair.CarryToReceiver();
  pair.receiver.Forget(key.consumer, pair.clock.Now());
  pair.Collect();
  pair.Settle();
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].status.code() == absl::StatusCode::kCancelled);
  CHECK(pair.received.empty());
  CHECK(pair.AtRest());
  // And whoever comes later learns it at once.
  pair.Offer(Key(1, 2, -1, 2), 20);
  pair.Settle();
  CHECK(pair.failed.size() == 2);
}

TEST_CASE("Transfer: a landed piece keeps its buffer until it is imported, wanted or not",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  while (pair.CarryToReceiver() || pair.CarryToSender() || pair.MovePiece()) {
  }
  REQUIRE(pair.landed.size() == 2);
  pair.receiver.Forget(key.consumer, pair.clock.Now());
  pair.Collect();
  CHECK(pair.num_buffers() == 2);
  pair.ImportAll();
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: after a rebind the old producer's pieces are dropped",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey old_key = Key(1, 2, 0), new_key = Key(3, 2, 0);
  pair.Expect(old_key, 4);
  pair.Offer(old_key, 4);
  pair.Settle();
  pair.Stage(old_key, 0, 0, 4, true);
  pair.CarryToReceiver();
  pair.CarryToSender();
  pair.receiver.Rebind(Task(2), {0, Task(3)}, pair.clock.Now());
  pair.Collect();
  pair.Settle();
  CHECK(pair.received.empty());
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].key == old_key);
  pair.Offer(new_key, 4);
  pair.Settle();
  pair.Stage(new_key, 0, 0, 4, true);
  pair.Settle();
  REQUIRE(pair.received.size() == 1);
  CHECK(pair.received[0].producer == Task(3));
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a later attempt replaces an earlier one", "[scheduler][transfer]") {
  Pair pair;
  StageTwo(pair, Key(1, 2, -1, 1));
  pair.sender.Cancel(Key(1, 2, -1, 1), pair.clock.Now());
  pair.Collect();
  const TransferKey again = Key(1, 2, -1, 2);
  pair.Offer(again, 20);
  pair.Settle();
  REQUIRE(pair.granted.size() == 2);
  pair.Stage(again, 0, 0, 20, true);
  pair.Settle();
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
  // The first attempt has no say any more.
  pair.receiver.Handle(kProducerWorker,
                       Offer{.key = Key(1, 2, -1, 1),
                             .fingerprint = "model",
                             .kind = TransferKind::kKv,
                             .num_tokens = 20,
                             .bytes = 200},
                       pair.clock.Now());
  pair.Collect();
  REQUIRE(pair.to_sender.size() == 1);
  CHECK(std::get<Deny>(pair.to_sender[0]).reason == Deny::Reason::kOver);
}

TEST_CASE("Transfer: a lost peer takes its transfers along, and memory waits for transport",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  StageTwo(pair, key);
  pair.CarryToReceiver();
  pair.CarryToReceiver();
  pair.CarryToSender();
  pair.CarryToSender();
  pair.sender.PeerLost(kConsumerWorker, pair.clock.Now());
  pair.receiver.PeerLost(kProducerWorker, pair.clock.Now());
  pair.Collect();
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].status.code() == absl::StatusCode::kUnavailable);
  CHECK(pair.aborts == 2);
  CHECK(pair.num_buffers() == 4);
  pair.MovePiece(absl::AbortedError("abort"));
  pair.MovePiece(absl::AbortedError("abort"));
  CHECK(pair.AtRest());
  pair.Offer(Key(4, 5), 4);
  CHECK(pair.failed.size() == 2);
  CHECK(pair.to_receiver.empty());
}

TEST_CASE("Transfer: what was acknowledged whole is received although its producer is lost",
          "[scheduler][transfer]") {
  Pair pair;
  StageTwo(pair, Key(1, 2));
  while (pair.CarryToReceiver() || pair.CarryToSender() || pair.MovePiece()) {
  }
  REQUIRE(pair.delivered.size() == 1);
  REQUIRE(pair.landed.size() == 2);
  const bool half_imported = GENERATE(false, true);
  if (half_imported) {
    pair.receiver.Imported(pair.landed[0].buffer.id, pair.clock.Now());
    pair.landed.erase(pair.landed.begin());
  }
  pair.receiver.PeerLost(kProducerWorker, pair.clock.Now());
  pair.Collect();
  pair.ImportAll();
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: an input is received once, right after its last piece has landed",
          "[scheduler][transfer]") {
  Pair pair;
  StageTwo(pair, Key(1, 2));
  while (pair.landed.size() < 2) {
    CHECK(pair.received.empty());
    REQUIRE((pair.CarryToReceiver() || pair.CarryToSender() || pair.MovePiece()));
  }
  // Nothing is imported yet: whoever plans does that first.
  CHECK(pair.received.size() == 1);
  pair.ImportAll();
  while (pair.CarryToReceiver() || pair.CarryToSender() || pair.MovePiece()) {
  }
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: staging and landing memory stay inside their budgets",
          "[scheduler][transfer]") {
  Pair pair(/*staging=*/150, /*landing=*/100);
  const TransferKey key = Key(1, 2);
  pair.Expect(key, 40);
  pair.Offer(key, 40);
  pair.Settle();
  CHECK(pair.Stage(key, 0, 0, 10, false));
  CHECK_FALSE(pair.Stage(key, 1, 10, 20, false));
  pair.CarryToReceiver();
  CHECK(pair.receiver.landing_bytes() == 100);
  for (int i = 1; i < 4; ++i) {
    pair.Settle();
    CHECK(pair.Stage(key, i, i * 10, i * 10 + 10, i == 3));
  }
  pair.Settle();
  CHECK(pair.received.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a piece larger than the agreed bound is refused before it has memory",
          "[scheduler][transfer]") {
  Pair pair(/*staging=*/1 << 20, /*landing=*/50);
  const TransferKey key = Key(1, 2, 0);
  pair.Expect(key, 10);
  pair.Offer(key, 10);
  pair.Settle();
  CHECK(pair.Stage(key, 0, 0, 10, true));
  pair.Settle();
  CHECK(pair.received.empty());
  REQUIRE(pair.failed.size() == 1);
  CHECK(absl::IsInternal(pair.failed[0].status));
  pair.Settle();
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: Go for a piece that was never ready ends the connection",
          "[scheduler][transfer]") {
  Pair pair;
  pair.Offer(Key(1, 2, 0), 4);
  pair.sender.Handle(kConsumerWorker, Go{Key(1, 2, 0), 0, 1}, pair.clock.Now());
  pair.Collect();
  CHECK(pair.aborts == 1);
  CHECK(pair.sends.empty());
  CHECK(pair.failed.size() == 1);
}

}  // namespace
}  // namespace triptych::scheduler::testing
