#include "tests/simulation/scenario.h"

#include <algorithm>

#include "tests/simulation/sim_gateway.h"
#include "tests/simulation/sim_worker.h"

namespace triptych::simulation {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr base::Duration kFaultsFor = seconds(8);
constexpr base::Duration kLongestFault = seconds(5);
constexpr base::Duration kApartFor = seconds(12);

}  // namespace

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

Scenario ScenarioOf(uint64_t seed) {
  base::SeededRandom random(seed * 7919);
  Scenario s;
  s.shape.roles = Topology(seed);
  const auto on = [&] { return random.Chance(0.4); };
  const auto some = [&](int most) { return static_cast<int>(random.Between(1, most)); };
  if (on()) s.faults.reset_stream = 0.003;
  if (on()) s.faults.duplicate = 0.1;
  if (on()) s.faults.slow = 0.1;
  if (on()) s.faults.piece_drop = s.faults.piece_corrupt = s.faults.piece_delay = 0.05;
  if (on()) s.kills = some(3);
  if (on()) s.freezes = some(3);
  if (on()) s.scheduler_restarts = some(2);
  if (on()) s.two_schedulers = true;
  if (on()) s.cancel_chance = 0.3;
  if (on()) s.deadline_chance = 0.2;
  if (on()) {
    s.shape.kv_blocks = 24;
    s.shape.embedding_slots = 100;
  }
  if (on()) s.gateway_kills = some(2);
  if (on()) s.worker_drains = some(2);
  if (on()) s.gateway_drains = 1;
  if (on()) s.cuts = some(4);
  if (on()) s.deaf_acks = some(4);
  if (on()) s.faults.break_link = 0.01;
  if (random.Chance(0.2)) s.dead_links = some(2);
  if (random.Chance(0.2)) s.control_resets = some(2);
  if (random.Chance(0.2)) s.other_freezes = some(3);
  if (on()) {
    s.shape.variety = seed;
    s.ends_within = seconds(90);  // a slow one of two rows may have sixteen sequences
  }
  if (random.Chance(0.3)) s.faults.repeat_control = 0.05;
  if (random.Chance(0.2)) s.faults.engine_error = 0.002;
  if (random.Chance(0.1)) s.shape.scheduler.queue.requests = some(20);
  return s;
}

Run::Run(uint64_t seed, const Scenario& scenario)
    : scenario_(scenario), cluster_(seed, scenario.shape) {
  cluster_.cancel_chance = scenario.cancel_chance;
  cluster_.deadline_chance = scenario.deadline_chance;
  cluster_.world.faults = scenario.faults;
  faults_end_ = cluster_.world.now() + kFaultsFor;
  Plan();
  PlanFaults();
  PlanSchedulers();
}

std::string Run::Play(Met* met) {
  while (cluster_.Step(faults_end_)) {
    if (!cluster_.failure.empty()) return cluster_.failure;
  }
  // Sleepers wake, cuts heal.
  cluster_.world.faults = {};
  const base::TimePoint calm = faults_end_ + kLongestFault;
  const base::TimePoint end = calm + scenario_.ends_within;
  for (base::TimePoint until = faults_end_; until < end; until += milliseconds(500)) {
    while (cluster_.Step(until)) {
      if (!cluster_.failure.empty()) return cluster_.failure;
    }
    if (until < calm || !cluster_.NotAtRest().empty()) continue;
    met->longest_end = std::max(met->longest_end, until - calm);
    return AtTheEnd(met);
  }
  return "not at rest in time: " + cluster_.NotAtRest();
}

base::Duration Run::Within(base::Duration limit) {
  return base::Duration(cluster_.world.random.Between(0, limit.count()));
}

Incarnation Run::AnyWorker() {
  auto it = cluster_.workers.begin();
  std::advance(it, cluster_.world.random.Below(cluster_.workers.size()));
  return it->first;
}

Incarnation Run::AnyGateway() {
  auto it = cluster_.gateways.begin();
  std::advance(it, cluster_.world.random.Below(cluster_.gateways.size()));
  return it->first;
}

void Run::Repeat(int times, std::function<void()> event) {
  for (int i = 0; i < times; ++i) {
    cluster_.world.At(seconds(1) + Within(seconds(6)), [this, event] {
      if (!cluster_.workers.empty() && !cluster_.gateways.empty()) event();
    });
  }
}

void Run::Plan() {
  for (int i = 0; i < scenario_.requests; ++i) {
    cluster_.world.At(seconds(1) + Within(seconds(4)), [this] { cluster_.Submit(); });
  }
}

void Run::PlanFaults() {
  Repeat(scenario_.kills, [this] { cluster_.KillWorker(AnyWorker()); });
  Repeat(scenario_.freezes, [this] { cluster_.Freeze(AnyWorker(), Within(kLongestFault)); });
  Repeat(scenario_.gateway_kills, [this] { cluster_.KillGateway(AnyGateway()); });
  Repeat(scenario_.worker_drains, [this] { DrainSomebody(); });
  Repeat(scenario_.gateway_drains, [this] { cluster_.DrainGateway(AnyGateway()); });
  Repeat(scenario_.cuts, [this] { CutSomebody(); });
  Repeat(scenario_.deaf_acks, [this] { LoseAcknowledgements(); });
  Repeat(scenario_.dead_links, [this] { PartTwoWorkers(); });
  Repeat(scenario_.control_resets, [this] { ResetControl(); });
  Repeat(scenario_.other_freezes, [this] { FreezeAnother(); });
}

void Run::PlanSchedulers() {
  World& world = cluster_.world;
  for (int i = 0; i < scenario_.scheduler_restarts; ++i) {
    world.At(seconds(1) + Within(seconds(6)), [this] {
      if (cluster_.schedulers.empty()) return;
      cluster_.KillScheduler(cluster_.schedulers.begin()->first);
      cluster_.world.At(milliseconds(500), [this] { cluster_.StartScheduler(); });
    });
  }
  if (!scenario_.two_schedulers) return;
  world.At(seconds(1) + Within(seconds(2)), [this] { cluster_.StartScheduler(); });
  world.At(seconds(7), [this] {
    while (cluster_.schedulers.size() > 1) {
      cluster_.KillScheduler(cluster_.schedulers.begin()->first);
    }
  });
}

void Run::DrainSomebody() {
  const Incarnation worker = AnyWorker();
  const bool by_scheduler = cluster_.world.random.Chance(0.5);
  cluster_.DrainWorker(worker,
                       by_scheduler ? Cluster::Teller::kScheduler : Cluster::Teller::kSupervisor);
}

// One direction, chosen at random.
void Run::Cut(Incarnation a, Incarnation b) {
  if (a == b) return;
  if (cluster_.world.random.Chance(0.5)) std::swap(a, b);
  cluster_.world.Block(a, b, Within(kLongestFault));
}

void Run::CutSomebody() {
  switch (cluster_.world.random.Below(4)) {
    case 0:
      if (!cluster_.schedulers.empty()) Cut(cluster_.schedulers.begin()->first, AnyWorker());
      break;
    case 1:
      if (!cluster_.schedulers.empty()) Cut(cluster_.schedulers.begin()->first, AnyGateway());
      break;
    case 2:
      Cut(AnyWorker(), AnyWorker());
      break;
    default:
      Cut(AnyWorker(), AnyGateway());
      break;
  }
}

void Run::LoseAcknowledgements() {
  cluster_.world.Block(AnyGateway(), AnyWorker(), Within(kLongestFault), Stream::kReplies);
}

void Run::PartTwoWorkers() {
  const Incarnation a = AnyWorker(), b = AnyWorker();
  if (a == b) return;
  const bool both = cluster_.world.random.Chance(0.5);
  cluster_.world.Block(a, b, kApartFor);
  if (both) cluster_.world.Block(b, a, kApartFor);
}

void Run::ResetControl() {
  std::vector<std::pair<Incarnation, uint64_t>> peers;
  for (const auto& [id, worker] : cluster_.workers) peers.emplace_back(id, worker->generation);
  for (const auto& [id, gateway] : cluster_.gateways) peers.emplace_back(id, gateway->generation);
  for (const auto& [peer, generation] : peers) cluster_.BreakControl(peer, generation);
}

void Run::FreezeAnother() {
  const bool gateway = cluster_.world.random.Chance(0.5);
  if (!gateway && cluster_.schedulers.empty()) return;
  cluster_.Freeze(gateway ? AnyGateway() : cluster_.schedulers.begin()->first,
                  Within(kLongestFault));
}

std::string Run::AtTheEnd(Met* met) {
  for (const auto& [id, scheduler] : cluster_.schedulers) {
    met->restarted += scheduler->machine.Snapshot(cluster_.world.now()).restarts;
  }
  int ends = cluster_.died_with_gateway;
  for (const auto& [code, count] : cluster_.ends) ends += count;
  met->answered += cluster_.ends[absl::StatusCode::kOk];
  for (const auto& [code, count] : cluster_.ends) {
    if (code != absl::StatusCode::kOk) met->failed[code] += count;
  }
  met->died_with_gateway += cluster_.died_with_gateway;
  met->drained += cluster_.drained;
  if (ends == cluster_.submitted) return "";
  return std::to_string(cluster_.submitted) + " requests, " + std::to_string(ends) + " ends";
}

}  // namespace triptych::simulation
