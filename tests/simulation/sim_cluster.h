#pragma once

// A whole cluster in one thread: gateways, workers of any roles, one or more schedulers, joined by
// the simulated network. Faults are verbs. What must never happen is written to `failure`.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "scheduler/cluster/cluster_scheduler.h"
#include "tests/simulation/judge.h"
#include "tests/simulation/sabotage.h"
#include "tests/simulation/world.h"

namespace triptych::simulation {

class Cluster;

class SimScheduler;
// What arrives at a scheduler.
using ToMachine = std::function<void(SimScheduler&)>;

// A process with a control stream to a scheduler.
class ControlPeer : public Process {
 public:
  ControlPeer(Cluster& cluster, Incarnation id) : Process(id), cluster_(cluster) {}
  // Opens the stream: says hello to the machine.
  virtual ToMachine Hello() = 0;
  virtual void OnControlLost() {}

  scheduler::SchedulerId highest;
  Incarnation scheduler;    // whom it is connected to; 0: nobody
  uint64_t generation = 0;  // of the connection

 protected:
  Cluster& cluster_;
};

class SimScheduler final : public Process {
 public:
  SimScheduler(Cluster& cluster, Incarnation id);
  void AfterEvent() override;
  base::TimePoint NextWake() const override { return machine.NextDeadline(); }
  void Wake() override;
  void Act();
  void Handle(const scheduler::WorkerHello& hello);
  void Handle(const scheduler::GatewayHello& hello);
  void Handle(Incarnation worker, const scheduler::WorkerToScheduler& message);
  void Handle(Incarnation gateway, const scheduler::GatewayToScheduler& message);
  // Its connection is gone.
  void Disconnect(Incarnation peer);

  scheduler::ClusterScheduler machine;
  std::map<Incarnation, uint64_t> connections;  // peer -> generation
  Judge judge;

 private:
  bool NoteLost(Incarnation peer);
  void TellLost(Incarnation worker, Incarnation lost);
  template <typename Hello>
  void Greet(Hello hello);

  Cluster& cluster_;
  std::set<Incarnation> lost_;  // workers among them are refused for ever
};

class SimWorker;
class SimGateway;

struct ClusterShape {
  int gateways = 2;
  std::vector<std::string> roles;  // of each worker: letters of E, P, D
  int32_t kv_blocks = 256;
  int32_t embedding_slots = 512;
  // Workers differ in size, speed and knobs, drawn from this; 0: all are alike.
  uint64_t variety = 0;
  scheduler::ClusterConfig scheduler;
  Sabotage sabotage = Sabotage::kNone;
};

class Cluster {
 public:
  Cluster(uint64_t seed, ClusterShape shape);
  ~Cluster();

  // ---- control plane ----
  void Connect(Incarnation peer);
  void BreakControl(Incarnation peer, uint64_t generation);
  void ToScheduler(ControlPeer& peer, ToMachine deliver);
  // `deliver` happens at the peer if it obeys the sender by then.
  void ToPeer(SimScheduler& from, Incarnation peer, std::function<void()> deliver);

  // ---- faults ----
  void StartWorker(const std::string& roles);
  // Another of its roles starts a while later.
  void KillWorker(Incarnation id);
  void StartGateway();
  // Its clients are gone with it; another starts a while later.
  void KillGateway(Incarnation id);
  // A planned end: another starts first; then it takes nothing new, and ends when it holds nothing.
  // A worker may be told by its scheduler or by its own supervisor.
  enum class Teller : uint8_t { kScheduler, kSupervisor };
  void DrainWorker(Incarnation id, Teller teller);
  void DrainGateway(Incarnation id);
  void Freeze(Incarnation id, base::Duration time);
  void StartScheduler();
  void KillScheduler(Incarnation id);

  // ---- the run ----
  void Submit();  // a random request at a random gateway
  bool Step(base::TimePoint until);
  // Everything that was held has been given back and every request has ended; why not, otherwise:
  // at gateways, workers (tasks, pools, buffers) and in the schedulers' books.
  std::string NotAtRest() const;
  // A failure of a request that its gateway has ended: nobody hears of it. Or one that an engine's
  // error may have.
  bool IsOver(const scheduler::ClusterAction& action) const;
  // Every scheduler and every task, for a failure's message.
  std::string Describe() const;

  const ClusterShape& shape() const { return shape_; }

  World world;
  std::map<Incarnation, std::unique_ptr<SimWorker>> workers;
  std::map<Incarnation, std::unique_ptr<SimGateway>> gateways;
  std::map<Incarnation, std::unique_ptr<SimScheduler>> schedulers;
  // Requests that some worker was holding when it was killed.
  std::map<Incarnation, std::set<scheduler::RequestId>> held_at_death;
  // Requests of which an engine or media gave an error: their clients may hear of it.
  std::set<scheduler::RequestId> may_fail;
  std::map<scheduler::TaskId, scheduler::RequestId> request_of;
  std::string failure;
  void Violated(const std::string& what) {
    if (failure.empty()) failure = what;
  }
  // By sender, receiver, sequence; kept only for a receiver that ignores checksums.
  std::map<std::tuple<Incarnation, Incarnation, uint64_t>, uint64_t> sent_checksums;
  int submitted = 0;
  int died_with_gateway = 0;             // requests
  int drained = 0;                       // processes that have ended as planned
  std::map<absl::StatusCode, int> ends;  // of all other requests, by code
  double cancel_chance = 0, deadline_chance = 0;

 private:
  void Bury(Incarnation id);
  void EndWorker(Incarnation id);
  void EndGateway(Incarnation id);
  void EndWhenIdle(Incarnation id, base::TimePoint until);
  std::string SchedulersNotAtRest() const;
  ControlPeer* FindPeer(Incarnation id);
  const ClusterShape shape_;
};

}  // namespace triptych::simulation
