// Defended: nobody waits behind another's pictures. Who has had least is next; what is heavy leaves
// room for the rest; what is removed is gone.

#include "services/worker/media_queue.h"

#include <catch2/catch.hpp>
#include <vector>

#include "base/random.h"

namespace triptych::services {
namespace {

using Queue = MediaQueue<int>;
using scheduler::Incarnation;
using scheduler::RequestId;
using scheduler::TaskId;

constexpr int64_t kHeavy = Queue::kHeavyCost + 1;

RequestId Request(uint64_t number) { return {Incarnation(1), number}; }
TaskId Task(uint64_t number) { return {{1, Incarnation(2)}, number}; }

struct Filled {
  Queue queue;
  uint64_t tasks = 0;
  TaskId Push(uint64_t tenant, uint64_t request, int64_t cost) {
    ++tasks;
    queue.Push({tenant, Request(request), Task(tasks), cost}, static_cast<int>(tasks));
    return Task(tasks);
  }
  uint64_t PopTenant() { return queue.Pop(Queue::Take::kAny)->key.tenant; }
};

TEST_CASE("MediaQueue: a tenant with one picture waits for one of another's hundred",
          "[services][worker][security]") {
  Filled filled;
  for (int i = 0; i < 100; ++i) filled.Push(1, 1, 1000);
  filled.PopTenant();
  filled.PopTenant();
  filled.Push(2, 2, 1000);
  CHECK(filled.PopTenant() == 2);
}

TEST_CASE("MediaQueue: turns are counted in cost, not in pictures", "[services][worker]") {
  Filled filled;
  for (int i = 0; i < 10; ++i) filled.Push(1, 1, 1000);
  for (int i = 0; i < 100; ++i) filled.Push(2, 2, 100);
  int64_t had[3] = {};
  for (int i = 0; i < 55; ++i) {
    const auto entry = filled.queue.Pop(Queue::Take::kAny);
    had[entry->key.tenant] += entry->key.cost;
  }
  CHECK(had[1] == 5000);
  CHECK(had[2] == 5000);
}

TEST_CASE("MediaQueue: requests of one tenant take turns too, in their order",
          "[services][worker]") {
  Filled filled;
  for (int i = 0; i < 4; ++i) filled.Push(1, 1, 10);
  for (int i = 0; i < 2; ++i) filled.Push(1, 2, 10);
  std::vector<int> order;
  while (auto entry = filled.queue.Pop(Queue::Take::kAny)) order.push_back(entry->work);
  CHECK(order == std::vector<int>{1, 5, 2, 6, 3, 4});
}

TEST_CASE("MediaQueue: who rested does not make up for it", "[services][worker]") {
  Filled filled;
  for (int i = 0; i < 200; ++i) filled.Push(1, 1, 10);
  for (int i = 0; i < 100; ++i) filled.PopTenant();
  for (int i = 0; i < 100; ++i) filled.Push(2, 2, 10);
  int first = 0;
  for (int i = 0; i < 20; ++i) first += filled.PopTenant() == 1 ? 1 : 0;
  CHECK(first >= 9);
}

TEST_CASE("MediaQueue: what is heavy leaves room for what is not", "[services][worker][security]") {
  Filled filled;
  filled.Push(1, 1, kHeavy);
  filled.Push(1, 2, kHeavy);
  filled.Push(2, 3, 10);
  filled.Push(2, 3, kHeavy);
  CHECK(filled.queue.Pop(Queue::Take::kLight)->key.request == Request(3));
  CHECK_FALSE(filled.queue.Pop(Queue::Take::kLight).has_value());
  CHECK(filled.queue.size() == 3);
  for (int i = 0; i < 3; ++i) CHECK(filled.queue.Pop(Queue::Take::kAny).has_value());
  CHECK(filled.queue.size() == 0);
}

TEST_CASE("MediaQueue: what is removed is gone, whatever was popped", "[services][worker]") {
  constexpr uint64_t kSeed = 5;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  Filled filled;
  std::vector<TaskId> waiting;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t what = random.Below(3);
    if (what == 0 || waiting.empty()) {
      waiting.push_back(filled.Push(random.Below(4), random.Below(9), 1 + random.Below(kHeavy)));
    } else if (what == 1) {
      const size_t at = random.Below(waiting.size());
      REQUIRE(filled.queue.Remove(waiting[at])->key.task == waiting[at]);
      REQUIRE_FALSE(filled.queue.Remove(waiting[at]).has_value());
      waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      const auto entry = filled.queue.Pop(Queue::Take::kAny);
      REQUIRE(entry.has_value());
      REQUIRE(std::erase(waiting, entry->key.task) == 1);
    }
    REQUIRE(filled.queue.size() == waiting.size());
  }
}

}  // namespace
}  // namespace triptych::services
