// Defended: what is slow to read stands in nobody else's way. How: work that waits until it is let
// go, on threads of the pool.

#include "services/gateway/core/parse_pool.h"

#include <catch2/catch.hpp>
#include <future>
#include <memory>
#include <string>
#include <vector>

namespace triptych::services {
namespace {

using Turn = ParsePool::Turn;

// Work that says that it runs, and runs until it is let go.
struct Slow {
  std::promise<void> begun, let_go;
  ParsePool::Work Work() {
    return [this](Turn) {
      begun.set_value();
      let_go.get_future().wait();
    };
  }
};

TEST_CASE("ParsePool: a tenant never has all threads", "[gateway][core][hostile]") {
  ParsePool pool(2);
  Slow slow;
  REQUIRE(pool.Post("greedy", slow.Work()));
  slow.begun.get_future().wait();
  std::promise<void> second, polite;
  REQUIRE(pool.Post("greedy", [&](Turn) { second.set_value(); }));
  REQUIRE(pool.Post("polite", [&](Turn) { polite.set_value(); }));
  // It came later, and would wait for ever behind the other.
  polite.get_future().wait();
  auto later = second.get_future();
  CHECK(later.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
  slow.let_go.set_value();
  later.wait();
}

TEST_CASE("ParsePool: tenants take turns, each in its own order", "[gateway][core]") {
  ParsePool pool(1);
  Slow slow;
  REQUIRE(pool.Post("first", slow.Work()));
  slow.begun.get_future().wait();
  std::string order;
  for (const char* name : {"a", "a", "a", "b", "b", "c"}) {
    REQUIRE(pool.Post(name, [&order, name](Turn) { order += name; }));
  }
  std::promise<void> last;
  REQUIRE(pool.Post("a", [&](Turn) { last.set_value(); }));
  slow.let_go.set_value();
  last.get_future().wait();
  CHECK(order == "abcaba");
}

TEST_CASE("ParsePool: what waits is bounded, for a tenant and in all", "[gateway][core][hostile]") {
  ParsePool pool(1);
  Slow slow;
  REQUIRE(pool.Post("first", slow.Work()));
  slow.begun.get_future().wait();
  size_t posted = 0;
  while (pool.Post("greedy", [](Turn) {})) ++posted;
  CHECK(posted == ParsePool::kMaxOfTenant);
  for (int i = 0; i < 100; ++i) {
    const std::string name = std::to_string(i);
    while (pool.Post(name, [](Turn) {})) ++posted;
  }
  CHECK(posted == ParsePool::kMaxWaiting);
  slow.let_go.set_value();
}

TEST_CASE("ParsePool: what waits at the end is told so", "[gateway][core]") {
  auto pool = std::make_unique<ParsePool>(1);
  Slow slow;
  REQUIRE(pool->Post("first", slow.Work()));
  slow.begun.get_future().wait();
  std::promise<Turn> told;
  REQUIRE(pool->Post("second", [&](Turn turn) { told.set_value(turn); }));
  std::thread stopping([&] { pool->Stop(); });
  // Stopping refuses what is new; only then is the way free for what waits.
  while (pool->Post("third", [](Turn) {})) std::this_thread::yield();
  slow.let_go.set_value();
  CHECK(told.get_future().get() == Turn::kStopping);
  stopping.join();
}

}  // namespace
}  // namespace triptych::services
