#pragma once

// One run of a simulated cluster: what is asked of it and what goes wrong, all drawn from a seed,
// and the verdict at its end.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/simulation/sim_cluster.h"

namespace triptych::simulation {

// Faults begin in the first 8 s and last up to 5 s. Everything is over this long after the last:
// a scheduler that recovers (3 s), the grace of what nobody claims (2 s) and of a role that nobody
// has (2 s), timers that repeat what was lost (1 s), and the work that is left on slow devices.
inline constexpr base::Duration kEndsWithin = std::chrono::seconds(20);

struct Scenario {
  ClusterShape shape;
  Faults faults;
  int requests = 60;
  int kills = 0, freezes = 0, scheduler_restarts = 0;
  int gateway_kills = 0, worker_drains = 0, gateway_drains = 0;
  int cuts = 0;            // nothing passes from one process to another for a while
  int deaf_acks = 0;       // nor do acknowledgements of tokens
  int dead_links = 0;      // two workers are apart for longer than any request waits
  int control_resets = 0;  // every control stream breaks at once
  int other_freezes = 0;   // of schedulers and gateways
  bool two_schedulers = false;
  double cancel_chance = 0, deadline_chance = 0;
  base::Duration ends_within = kEndsWithin;
};

// What can go wrong is chosen by the seed, each kind alone and all together.
Scenario ScenarioOf(uint64_t seed);
// E+P+D, EP+D, E+PD, EPD, or a mixture.
std::vector<std::string> Topology(uint64_t number);

// What many runs met, together: faults that hit nothing defend nothing.
struct Met {
  int64_t answered = 0;                        // in full
  std::map<absl::StatusCode, int64_t> failed;  // with a reason
  int64_t died_with_gateway = 0, restarted = 0, drained = 0;
  base::Duration longest_end{0};  // from the last fault to rest
};

class Run {
 public:
  Run(uint64_t seed, const Scenario& scenario);

  // Empty, or what was violated.
  std::string Play(Met* met);

 private:
  void Plan();
  void PlanFaults();
  void PlanSchedulers();
  void Repeat(int times, std::function<void()> event);
  void Cut(Incarnation a, Incarnation b);
  void CutSomebody();
  void LoseAcknowledgements();
  void PartTwoWorkers();
  void ResetControl();
  void FreezeAnother();
  void DrainSomebody();
  base::Duration Within(base::Duration limit);
  Incarnation AnyWorker();
  Incarnation AnyGateway();
  std::string AtTheEnd(Met* met);

  const Scenario scenario_;
  Cluster cluster_;
  base::TimePoint faults_end_;
};

}  // namespace triptych::simulation
