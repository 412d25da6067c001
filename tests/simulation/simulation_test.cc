// Defended: the invariants of the design, over the whole cluster. Exactly one end for each request;
// tokens in order, none lost, none twice, and those of an undisturbed run; everything given back;
// everything ends within a bound once the faults are over. How: the real machines of every process
// in one thread, on simulated time and a simulated network, with faults drawn from a seed.
//
// One seed again: TRIPTYCH_SEED=N test_simulation "Simulation: one seed from the environment"

#include <catch2/catch.hpp>
#include <cstdlib>

#include "tests/simulation/sim_cluster.h"
#include "tests/simulation/sim_gateway.h"
#include "tests/simulation/sim_worker.h"
#include "tests/support/skip.h"

namespace triptych::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Scenario {
  ClusterShape shape;
  Faults faults;
  int requests = 60;
  int kills = 0, freezes = 0, scheduler_restarts = 0;
  bool two_schedulers = false;
  double cancel_chance = 0, deadline_chance = 0;
  bool expect_all_ok = false;
};

// What many runs met, together: faults that hit nothing defend nothing.
struct Met {
  int64_t answered = 0;  // in full
  int64_t restarted = 0, refused_or_failed = 0;
};

constexpr base::Duration kFaultsFor = seconds(8);
constexpr base::Duration kEndsWithin = seconds(120);

class Run {
 public:
  Run(uint64_t seed, const Scenario& scenario)
      : scenario_(scenario), cluster_(seed, scenario.shape) {
    cluster_.cancel_chance = scenario.cancel_chance;
    cluster_.deadline_chance = scenario.deadline_chance;
    cluster_.world.faults = scenario.faults;
    Plan();
  }

  // Empty, or what was violated.
  std::string Play(Met* met) {
    const base::TimePoint begin = cluster_.world.now();
    while (cluster_.Step(begin + kFaultsFor)) {
      if (!cluster_.failure.empty()) return cluster_.failure;
    }
    cluster_.world.faults = {};
    const base::TimePoint end = begin + kFaultsFor + kEndsWithin;
    for (base::TimePoint until = begin + kFaultsFor; until < end; until += milliseconds(500)) {
      while (cluster_.Step(until)) {
        if (!cluster_.failure.empty()) return cluster_.failure;
      }
      if (cluster_.NotAtRest().empty()) return AtTheEnd(met);
    }
    return "not at rest in time: " + cluster_.NotAtRest();
  }

 private:
  void Plan() {
    World& world = cluster_.world;
    const auto within = [&](base::Duration limit) {
      return base::Duration(world.random.Between(0, limit.count()));
    };
    for (int i = 0; i < scenario_.requests; ++i) {
      world.At(seconds(1) + within(seconds(4)), [this] { cluster_.Submit(); });
    }
    for (int i = 0; i < scenario_.kills; ++i) {
      world.At(seconds(1) + within(seconds(6)), [this] {
        if (!cluster_.workers.empty()) cluster_.KillWorker(AnyWorker());
      });
    }
    for (int i = 0; i < scenario_.freezes; ++i) {
      const base::Duration time = within(seconds(5));
      world.At(seconds(1) + within(seconds(6)), [this, time] {
        if (!cluster_.workers.empty()) cluster_.Freeze(AnyWorker(), time);
      });
    }
    for (int i = 0; i < scenario_.scheduler_restarts; ++i) {
      world.At(seconds(1) + within(seconds(6)), [this] {
        if (cluster_.schedulers.empty()) return;
        cluster_.KillScheduler(cluster_.schedulers.begin()->first);
        cluster_.world.At(milliseconds(500), [this] { cluster_.StartScheduler(); });
      });
    }
    if (!scenario_.two_schedulers) return;
    world.At(seconds(1) + within(seconds(2)), [this] { cluster_.StartScheduler(); });
    world.At(seconds(7), [this] {
      while (cluster_.schedulers.size() > 1) {
        cluster_.KillScheduler(cluster_.schedulers.begin()->first);
      }
    });
  }

  Incarnation AnyWorker() {
    auto it = cluster_.workers.begin();
    std::advance(it, cluster_.world.random.Below(cluster_.workers.size()));
    return it->first;
  }

  std::string AtTheEnd(Met* met) {
    int ends = 0;
    std::string complaint;
    for (const auto& [id, scheduler] : cluster_.schedulers) {
      met->restarted += scheduler->machine.Snapshot(cluster_.world.now()).restarts;
    }
    for (const auto& [id, gateway] : cluster_.gateways) {
      for (const auto& [code, count] : gateway->ends) ends += count;
      met->answered += gateway->ends[absl::StatusCode::kOk];
      met->refused_or_failed += static_cast<int64_t>(gateway->complaints.size());
      if (!gateway->complaints.empty()) complaint = gateway->complaints[0];
    }
    if (ends != cluster_.submitted) {
      return std::to_string(cluster_.submitted) + " requests, " + std::to_string(ends) + " ends";
    }
    return scenario_.expect_all_ok ? complaint : "";
  }

  const Scenario scenario_;
  Cluster cluster_;
};

std::vector<std::string> Topology(uint64_t number) {
  switch (number % 5) {
    case 0:
      return {"E", "E", "P", "P", "D", "D"};
    case 1:
      return {"EP", "EP", "D", "D"};
    case 2:
      return {"E", "E", "PD", "PD"};
    case 3:
      return {"EPD", "EPD"};
    default:
      return {"E", "EP", "PD", "EPD", "D", "P"};
  }
}

// What can go wrong is chosen by the seed, each kind alone and all together.
Scenario ScenarioOf(uint64_t seed) {
  base::SeededRandom random(seed * 7919);
  Scenario s;
  s.shape.roles = Topology(seed);
  const auto on = [&] { return random.Chance(0.4); };
  if (on()) s.faults.reset_stream = 0.003;
  if (on()) s.faults.duplicate = 0.1;
  if (on()) s.faults.slow = 0.1;
  if (on()) s.faults.piece_drop = s.faults.piece_corrupt = s.faults.piece_delay = 0.05;
  if (on()) s.kills = static_cast<int>(random.Between(1, 3));
  if (on()) s.freezes = static_cast<int>(random.Between(1, 3));
  if (on()) s.scheduler_restarts = static_cast<int>(random.Between(1, 2));
  if (on()) s.two_schedulers = true;
  if (on()) s.cancel_chance = 0.3;
  if (on()) s.deadline_chance = 0.2;
  if (on()) {
    s.shape.kv_blocks = 24;
    s.shape.embedding_slots = 100;
  }
  return s;
}

void PlaySeed(uint64_t seed, Met* met) {
  INFO("TRIPTYCH_SEED=" << seed
                        << " test_simulation \"Simulation: one seed from the environment\"");
  const std::string violated = Run(seed, ScenarioOf(seed)).Play(met);
  REQUIRE(violated == "");
}

TEST_CASE("Simulation: without faults every request is answered", "[sim][scheduler]") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    INFO("seed " << seed);
    Scenario scenario;
    scenario.shape.roles = Topology(seed);
    scenario.expect_all_ok = true;
    Met met;
    REQUIRE(Run(seed, scenario).Play(&met) == "");
    REQUIRE(met.answered == scenario.requests);
  }
}

TEST_CASE("Simulation: whatever breaks, answers stay whole and everything is given back",
          "[sim][scheduler]") {
  Met met;
  for (uint64_t seed = 1; seed <= 200; ++seed) PlaySeed(seed, &met);
  WARN("answered " << met.answered << ", failed " << met.refused_or_failed << ", restarted "
                   << met.restarted);
  CHECK(met.answered > 5000);
  CHECK(met.restarted > 500);
}

TEST_CASE("Simulation: a new scheduler takes over no prefill of unknown extent",
          "[sim][scheduler]") {
  // Tokens had been sent when the scheduler restarted. It took the kept prefill for one of the
  // prompt and those tokens: decode workers were told of more KV than there was (16, 25), or none
  // was ever wanted, one token short of the end (6, 11, 14, 59).
  Met met;
  for (uint64_t seed : {6, 11, 14, 16, 25, 59}) PlaySeed(seed, &met);
}

TEST_CASE("Simulation: an encoder that dies once its embedding is acknowledged is not missed",
          "[sim][scheduler]") {
  // It had said that it delivered; the receiver dropped the piece that was not imported yet.
  Met met;
  for (uint64_t seed : {202, 232}) PlaySeed(seed, &met);
}

TEST_CASE("Simulation: one seed from the environment", "[sim][scheduler]") {
  const char* seed = std::getenv("TRIPTYCH_SEED");
  if (seed == nullptr) return testing::SkipTest("TRIPTYCH_SEED is not set");
  Met met;
  PlaySeed(std::strtoull(seed, nullptr, 10), &met);
}

}  // namespace
}  // namespace triptych::simulation
