#pragma once

// A whole cluster in one thread: gateways, workers of any roles, one or more schedulers, joined by
// the simulated network. Faults are verbs. What must never happen is written to `failure`.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/cluster/cluster_scheduler.h"
#include "tests/simulation/world.h"

namespace triptych::simulation {

class Cluster;

// A process with a control stream to a scheduler.
class ControlPeer : public Process {
 public:
  ControlPeer(Cluster& cluster, Incarnation id) : Process(id), cluster_(cluster) {}
  // Opens the stream: says hello to the machine.
  virtual std::function<void(scheduler::ClusterScheduler&, base::TimePoint)> Hello() = 0;
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

  scheduler::ClusterScheduler machine;
  std::map<Incarnation, uint64_t> connections;  // peer -> generation

 private:
  Cluster& cluster_;
};

class SimWorker;
class SimGateway;

struct ClusterShape {
  int gateways = 2;
  std::vector<std::string> roles;  // of each worker: letters of E, P, D
  int32_t kv_blocks = 256;
  int32_t embedding_slots = 512;
};

class Cluster {
 public:
  Cluster(uint64_t seed, ClusterShape shape);
  ~Cluster();

  // ---- control plane ----
  void Connect(Incarnation peer);
  void BreakControl(Incarnation peer, uint64_t generation);
  void ToScheduler(ControlPeer& peer,
                   std::function<void(scheduler::ClusterScheduler&, base::TimePoint)> deliver);
  // `deliver` happens at the peer if it obeys the sender by then.
  void ToPeer(SimScheduler& from, Incarnation peer, std::function<void()> deliver);

  // ---- faults ----
  void StartWorker(const std::string& roles);
  void KillWorker(Incarnation id);
  void Freeze(Incarnation id, base::Duration time);
  void StartScheduler();
  void KillScheduler(Incarnation id);

  // ---- the run ----
  void Submit();  // a random request at a random gateway
  bool Step(base::TimePoint until);
  // Everything that was held has been given back and every request has ended; why not, otherwise.
  std::string NotAtRest() const;
  // Every scheduler and every task, for a failure's message.
  std::string Describe() const;

  World world;
  std::map<Incarnation, std::unique_ptr<SimWorker>> workers;
  std::map<Incarnation, std::unique_ptr<SimGateway>> gateways;
  std::map<Incarnation, std::unique_ptr<SimScheduler>> schedulers;
  std::string failure;
  int submitted = 0;
  double cancel_chance = 0, deadline_chance = 0;

 private:
  ControlPeer* FindPeer(Incarnation id);
  const ClusterShape shape_;
};

}  // namespace triptych::simulation
