// Defended: a link may break in any way, for any time, and what is lost with it is never waited
// for; who cannot be reached is named, and one broken link holds up no other.

#include <catch2/catch.hpp>

#include "tests/scheduler/transfer/pair.h"

namespace triptych::scheduler {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::kConsumerWorker;
using testing::Key;
using testing::kProducerWorker;
using testing::Pair;

// A transfer whose first piece has its Go under way.
struct Going : Pair {
  const TransferKey key = Key(1, 2);

  explicit Going(int64_t staging = 1 << 20, int64_t landing = 1 << 20) : Pair(staging, landing) {
    Expect(key, 20);
    Offer(key, 20);
    Settle();
    REQUIRE(Stage(key, 0, 0, 10, false));
    REQUIRE(CarryToReceiver());
    REQUIRE(receives.size() == 1);
    REQUIRE(to_sender.size() == 1);
  }
  void WaitLong() {
    for (int i = 0; i < 40; ++i) {
      Settle();
      Wait(milliseconds(250));
    }
  }
};

}  // namespace

TEST_CASE("Transfer: a link that breaks in both directions heals", "[scheduler][transfer]") {
  Going pair;
  pair.LoseMessages();  // with the Go
  pair.BreakBytes();
  const TransferKey other = Key(3, 4);
  pair.Expect(other, 10);
  pair.Offer(other, 10);
  pair.Settle();
  REQUIRE(pair.Stage(other, 0, 0, 10, true));
  REQUIRE(pair.Stage(pair.key, 1, 10, 20, true));
  pair.WaitLong();
  CHECK(pair.delivered.size() == 2);
  CHECK(pair.failed.empty());
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: what a broken connection still says changes nothing",
          "[scheduler][transfer]") {
  Going pair;
  const TransferMessage late = pair.to_sender.front();
  pair.BreakBytes();
  pair.Settle();
  REQUIRE(pair.Stage(pair.key, 1, 10, 20, true));
  pair.sender.Handle(kConsumerWorker, late, pair.clock.Now());
  pair.Collect();
  pair.WaitLong();
  CHECK(pair.aborts == 0);
  CHECK(pair.delivered.size() == 1);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: a peer that does not answer for 2 s is out of reach, and is named",
          "[scheduler][transfer]") {
  const bool granted = GENERATE(false, true);
  CAPTURE(granted);
  Pair pair;
  const TransferKey key = Key(1, 2);
  pair.Expect(key, 10);
  pair.Offer(key, 10);
  if (granted) {
    pair.Settle();
    REQUIRE(pair.Stage(key, 0, 0, 10, true));
  }
  for (int i = 0; i < 7; ++i) {
    pair.LoseMessages();
    pair.Wait(milliseconds(250));
  }
  CHECK(pair.failed.empty());
  pair.LoseMessages();
  pair.Wait(milliseconds(250));
  REQUIRE(pair.failed.size() == 1);
  CHECK(absl::IsUnavailable(pair.failed[0].status));
  CHECK(pair.failed[0].peer == kConsumerWorker);
  // The link comes back: nothing of it is held, and the next transfer passes.
  pair.Settle();
  pair.Wait(milliseconds(500));
  pair.Settle();
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: what was given up holds no memory while its peer is out of reach",
          "[scheduler][transfer]") {
  // Half of the region is what one peer may hold.
  Going pair(/*staging=*/400);
  const bool heard = GENERATE(false, true);  // the Go
  CAPTURE(heard);
  if (heard) REQUIRE(pair.CarryToSender());
  pair.sender.Cancel(pair.key, pair.clock.Now());
  pair.Collect();
  for (int i = 0; i < 12; ++i) {
    pair.LoseMessages();
    pair.Wait(milliseconds(250));
  }
  // What is posted is the transport's until it is done.
  CHECK(pair.sender.staged_bytes() == (heard ? 100 : 0));
  if (heard) {
    pair.BreakBytes();
    pair.LoseMessages();
    pair.Wait(milliseconds(500));
    CHECK(pair.sender.staged_bytes() == 0);
    pair.LoseMessages();
  }
  // It comes back and still asks; another transfer holds what there is.
  const TransferKey other = Key(3, 4);
  pair.Expect(other, 10);
  pair.Offer(other, 10);
  pair.WaitLong();
  REQUIRE(pair.Stage(other, 0, 0, 10, true));
  pair.WaitLong();
  CHECK(pair.delivered == std::vector<TransferKey>{other});
  CHECK(pair.aborts == 0);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: an answer that comes late enough is no silence", "[scheduler][transfer]") {
  Pair pair(1 << 20, /*landing=*/200);
  // All landing memory that one peer may hold is taken by a piece that nobody imports.
  const TransferKey first = Key(1, 2), second = Key(3, 4);
  for (const TransferKey& key : {first, second}) {
    pair.Expect(key, 10);
    pair.Offer(key, 10);
    pair.Settle();
    REQUIRE(pair.Stage(key, 0, 0, 10, true));
  }
  for (int i = 0; i < 60; ++i) {
    while (pair.CarryToReceiver() || pair.CarryToSender() || pair.MovePiece()) {
    }
    pair.Wait(seconds(1));
  }
  CHECK(pair.failed.empty());
  REQUIRE(pair.landed.size() == 1);
  pair.WaitAndSettle();
  CHECK(pair.delivered.size() == 2);
}

TEST_CASE("Transfer: a consumer that is not assigned yet is no silence", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  pair.Offer(key, 10);
  for (int i = 0; i < 40; ++i) {
    pair.Settle();
    pair.Wait(milliseconds(250));
  }
  CHECK(pair.failed.empty());
  pair.Expect(key, 10);
  pair.WaitAndSettle();
  CHECK(pair.granted.size() == 1);
}

TEST_CASE("Transfer: bytes that do not move for 30 s put their peer out of reach",
          "[scheduler][transfer]") {
  Going pair;
  const auto answer = [&] {
    while (pair.CarryToReceiver() || pair.CarryToSender()) {
    }
  };
  for (int i = 0; i < 29; ++i) {
    answer();
    pair.Wait(seconds(1));
  }
  CHECK(pair.failed.empty());
  answer();
  pair.Wait(seconds(2));
  REQUIRE(pair.failed.size() == 1);
  CHECK(pair.failed[0].peer == kConsumerWorker);
}

TEST_CASE("Transfer: a silent receiver holds no more than its share of staging memory",
          "[scheduler][transfer]") {
  Pair pair(/*staging=*/1000);
  const TransferKey dead = Key(1, 2);
  pair.Expect(dead, 100);
  pair.Offer(dead, 100);
  pair.Settle();
  int32_t staged = 0;
  while (staged < 100 && pair.Stage(dead, staged / 10, staged, staged + 10, staged == 90)) {
    staged += 10;
  }
  CHECK(staged == 50);
  // Another peer has room.
  const TransferKey other = Key(3, 4);
  pair.sender.Offer(
      {.key = other, .peer = {Incarnation(77), "other"}, .num_tokens = 10, .bytes = 100},
      pair.clock.Now());
  pair.sender.Handle(Incarnation(77), Grant{other}, pair.clock.Now());
  CHECK(pair.sender.ReserveStaging(other, 500).has_value());
}

TEST_CASE("Transfer: pieces of a peer that holds its share are passed by",
          "[scheduler][transfer]") {
  Pair pair(1 << 20, /*landing=*/200);
  const auto ready = [&](uint64_t peer, uint64_t producer) {
    const TransferKey key = Key(producer, producer + 1);
    pair.receiver.Handle(Incarnation(peer),
                         Offer{.key = key, .fingerprint = "model", .num_tokens = 10, .bytes = 100},
                         pair.clock.Now());
    pair.receiver.Handle(Incarnation(peer),
                         Ready{.key = key,
                               .range = {TransferKind::kKv, 0, 10, 0, 1},
                               .bytes = 100,
                               .position = Ready::Position::kLast,
                               .first_token = FirstToken{}},
                         pair.clock.Now());
  };
  for (uint64_t producer : {1, 3, 5}) pair.Expect(Key(producer, producer + 1), 10);
  ready(51, 1);
  ready(51, 3);
  ready(52, 5);
  int posted = 0;
  for (const TransferAction& action : pair.receiver.TakeActions()) {
    const auto* post = std::get_if<PostReceive>(&action);
    if (post != nullptr) posted += post->peer.incarnation == Incarnation(52) ? 10 : 1;
  }
  CHECK(posted == 11);
}

TEST_CASE("Transfer: an item may have fewer tokens than were reserved for it",
          "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2, /*item=*/0);
  pair.Expect(key, 20);
  pair.Offer(key, 12);
  pair.Settle();
  REQUIRE(pair.Stage(key, 0, 0, 12, true));
  pair.Settle();
  REQUIRE(pair.received.size() == 1);
  CHECK(pair.received[0].num_tokens == 12);
  CHECK(pair.AtRest());
}

TEST_CASE("Transfer: what differs from the reservation is refused", "[scheduler][transfer]") {
  Pair pair;
  const TransferKey key = Key(1, 2);
  pair.Expect(key, 20);
  Offer offer{.key = key, .fingerprint = "model", .num_tokens = 20, .bytes = 200};
  SECTION("fewer tokens of KV") {
    offer.num_tokens = 12;
    offer.bytes = 120;
  }
  SECTION("other heads") { offer.heads = {0, 2}; }
  SECTION("from another token on") {
    offer.from_token = 4;
    offer.bytes = 160;
  }
  SECTION("bytes that are not theirs") { offer.bytes = 190; }
  pair.receiver.Handle(kProducerWorker, offer, pair.clock.Now());
  pair.Collect();
  REQUIRE(pair.to_sender.size() == 1);
  CHECK(std::get<Deny>(pair.to_sender[0]).reason == Deny::Reason::kMismatch);
}

}  // namespace triptych::scheduler
