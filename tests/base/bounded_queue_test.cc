// Defends the bound of every queue between threads: a full or closed queue refuses, and what was
// accepted arrives once and in order.
#include "base/bounded_queue.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <thread>
#include <vector>

namespace triptych::base {
namespace {

TEST_CASE("BoundedQueue: a full queue refuses and leaves the value with the caller", "[base]") {
  BoundedQueue<std::vector<int>> queue(1);
  REQUIRE(queue.TryPush({1}));
  std::vector<int> second{2, 3};
  REQUIRE_FALSE(queue.TryPush(std::move(second)));
  REQUIRE(second == std::vector<int>{2, 3});
}

TEST_CASE("BoundedQueue: an urgent item ends the gathering, an ordinary one does not", "[base]") {
  const RealClock clock;
  BoundedQueue<int> queue(16);
  // The consumer would let items gather for an hour: only urgency can end this.
  std::deque<int> taken;
  REQUIRE(queue.TryPush(1));
  std::thread consumer([&] { taken = queue.PopAll(kNever, clock.Now() + std::chrono::hours(1)); });
  REQUIRE(queue.TryPush(2));
  REQUIRE(queue.TryPush(3, Urgency::kNow));
  consumer.join();
  REQUIRE(taken == std::deque<int>{1, 2, 3});
  // Urgency does not outlive what was urgent.
  const TimePoint begin = clock.Now();
  REQUIRE(queue.TryPush(4));
  REQUIRE(queue.PopAll(kNever, begin + std::chrono::milliseconds(5)).size() == 1);
  REQUIRE(clock.Now() >= begin + std::chrono::milliseconds(5));
}

TEST_CASE("BoundedQueue: a closed queue drains, then ends", "[base]") {
  BoundedQueue<int> queue(4);
  REQUIRE(queue.TryPush(7));
  queue.Close();
  REQUIRE_FALSE(queue.TryPush(8));
  REQUIRE(queue.Pop() == 7);
  REQUIRE(queue.Pop() == std::nullopt);
  REQUIRE(queue.PopAll(kNever).empty());
}

TEST_CASE("BoundedQueue: two producers, one consumer, nothing lost, each in order", "[base]") {
  BoundedQueue<int> queue(8);
  constexpr int kCount = 2000;
  auto produce = [&](int offset) {
    for (int i = 0; i < kCount; ++i) {
      while (!queue.TryPush(offset + i)) std::this_thread::yield();
    }
  };
  std::thread a(produce, 0);
  std::thread b(produce, 1'000'000);
  int next_a = 0, next_b = 1'000'000;
  while (next_a < kCount || next_b < 1'000'000 + kCount) {
    const int item = *queue.Pop();
    int& next = item >= 1'000'000 ? next_b : next_a;
    REQUIRE(item == next);
    ++next;
  }
  a.join();
  b.join();
}

}  // namespace
}  // namespace triptych::base
