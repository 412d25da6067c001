// Defended: connections are bounded in all and of one address; who is silent makes way, who is
// being answered does not.

#include "services/gateway/core/connection_table.h"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace triptych::services {
namespace {

using std::chrono::seconds;

struct Connection {
  explicit Connection(base::TimePoint since) : since(since) {}
  base::TimePoint since;
  bool told = false;
  base::TimePoint silent_since() const { return since; }
  void GiveWay() { told = true; }
};
using Table = ConnectionTable<Connection>;

struct Script {
  Table table{{.total = 4, .per_address = 2}};
  std::vector<std::shared_ptr<Connection>> connections;
  std::vector<Table::Place> places;

  // Silent for so long; 0: it is being answered.
  std::shared_ptr<Connection> Connect(const std::string& address, int silent_s,
                                      bool let_in = true) {
    const base::TimePoint now{seconds(10'000)};
    auto connection =
        std::make_shared<Connection>(silent_s == 0 ? base::kNever : now - seconds(silent_s));
    auto place = table.Enter(connection, address);
    CHECK((place != nullptr) == let_in);
    if (place != nullptr) {
      connections.push_back(connection);
      places.push_back(std::move(place));
    }
    return connection;
  }
};

TEST_CASE("ConnectionTable: of a full address the longest silent makes way",
          "[gateway][core][security]") {
  Script script;
  const auto first = script.Connect("a", 5), second = script.Connect("a", 9);
  const auto other = script.Connect("b", 100);
  script.Connect("a", 1);
  CHECK(second->told);
  CHECK_FALSE(first->told);
  CHECK_FALSE(other->told);
  // Told once is gone: the next makes way for the next.
  script.Connect("a", 1);
  CHECK(first->told);
}

TEST_CASE("ConnectionTable: of a full port the longest silent of all makes way",
          "[gateway][core][security]") {
  Script script;
  const auto oldest = script.Connect("a", 50);
  script.Connect("b", 10);
  script.Connect("c", 20);
  script.Connect("d", 30);
  script.Connect("e", 1);
  CHECK(oldest->told);
}

TEST_CASE("ConnectionTable: who is being answered stays, and the newcomer is not let in",
          "[gateway][core][security]") {
  Script script;
  const auto first = script.Connect("a", 0), second = script.Connect("a", 0);
  script.Connect("a", 1, /*let_in=*/false);
  CHECK_FALSE((first->told || second->told));
  script.Connect("b", 0);
  script.Connect("c", 0);
  // Nobody of an address that is new either.
  script.Connect("d", 1, /*let_in=*/false);
  script.places.erase(script.places.begin());
  script.Connect("a", 1);
  CHECK(script.table.size() == 4);
}

TEST_CASE("ConnectionTable: a connection that ends while another looks at it blocks nobody",
          "[gateway][core][security]") {
  Table table({.total = 64, .per_address = 8});
  // Its place goes with it, whoever holds it last.
  struct Holder {
    std::shared_ptr<Connection> connection;
    Table::Place place;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&table, t] {
      std::vector<std::shared_ptr<Holder>> held;
      for (int i = 0; i < 5000; ++i) {
        auto holder = std::make_shared<Holder>();
        // An alias: what the table locks keeps the holder, and with it the place.
        holder->connection = std::make_shared<Connection>(base::TimePoint(seconds(i + 1)));
        holder->place = table.Enter(std::shared_ptr<Connection>(holder, holder->connection.get()),
                                    std::to_string(t % 2));
        held.push_back(std::move(holder));
        if (held.size() > 6) held.erase(held.begin());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(table.size() == 0);
}

}  // namespace
}  // namespace triptych::services
