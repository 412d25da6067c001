// Defends: no byte of a region is handed out twice or lost, whatever the order of allocations and
// releases; checked against a plain set under seeded random use.

#include "scheduler/transfer/buffer_arena.h"

#include <catch2/catch.hpp>
#include <vector>

#include "base/random.h"

namespace triptych::scheduler {
namespace {

constexpr Incarnation kPeer(1), kOther(2);

TEST_CASE("BufferArena: released neighbours merge to one gap", "[scheduler][transfer]") {
  BufferArena arena(100, 1);
  const PieceBuffer a = *arena.Allocate(kPeer, 30), b = *arena.Allocate(kPeer, 40),
                    c = *arena.Allocate(kPeer, 30);
  CHECK_FALSE(arena.Allocate(kPeer, 1).has_value());
  arena.Release(a.id);
  arena.Release(c.id);
  CHECK(arena.held_bytes() == 40);
  CHECK_FALSE(arena.Allocate(kPeer, 40).has_value());
  arena.Release(b.id);
  CHECK(arena.Allocate(kPeer, 100)->offset == 0);
}

TEST_CASE("BufferArena: buffers begin at multiples of the alignment", "[scheduler][transfer]") {
  BufferArena arena(1000, 256);
  CHECK(arena.Allocate(kPeer, 1)->offset == 0);
  const PieceBuffer second = *arena.Allocate(kPeer, 300);
  CHECK(second.offset == 256);
  CHECK(second.bytes == 300);
  // 1000 rounded down holds three units, and three are held.
  CHECK_FALSE(arena.Allocate(kPeer, 1).has_value());
}

TEST_CASE("BufferArena: one peer holds at most half of it", "[scheduler][transfer]") {
  const BufferArena empty(100, 1);
  CHECK(empty.MayHold(kPeer, 100));  // or it could hold nothing of that size, ever
  BufferArena arena(100, 1);
  const PieceBuffer first = *arena.Allocate(kPeer, 30);
  CHECK(arena.MayHold(kPeer, 20));
  CHECK_FALSE(arena.MayHold(kPeer, 21));
  CHECK(arena.MayHold(kOther, 70));
  arena.Release(first.id);
  CHECK(arena.MayHold(kPeer, 100));
}

TEST_CASE("BufferArena: random use never overlaps", "[scheduler][transfer]") {
  const uint64_t seed = 77;
  INFO("seed " << seed);
  base::SeededRandom random(seed);
  BufferArena arena(64, 1);
  std::vector<PieceBuffer> held;
  for (int i = 0; i < 5000; ++i) {
    if (random.Next() % 2 == 0) {
      const auto got = arena.Allocate(kPeer, 1 + static_cast<int64_t>(random.Next() % 12));
      if (got.has_value()) held.push_back(*got);
    } else if (!held.empty()) {
      std::swap(held[random.Next() % held.size()], held.back());
      arena.Release(held.back().id);
      held.pop_back();
    }
    std::vector<bool> used(64, false);
    int64_t count = 0;
    for (const PieceBuffer& buffer : held) {
      for (int64_t at = buffer.offset; at < buffer.offset + buffer.bytes; ++at) {
        REQUIRE_FALSE(used[at]);
        used[at] = true;
        ++count;
      }
      REQUIRE(arena.Holds(buffer.id));
    }
    REQUIRE(arena.held_bytes() == count);
    REQUIRE(arena.num_held() == static_cast<int>(held.size()));
  }
}

}  // namespace
}  // namespace triptych::scheduler
