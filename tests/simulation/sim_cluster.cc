#include "tests/simulation/sim_cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/simulation/sim_gateway.h"
#include "tests/simulation/sim_worker.h"

namespace triptych::simulation {

using std::chrono::milliseconds;

namespace {

// A planned end is over by then, whatever else breaks.
constexpr base::Duration kDrainsWithin = std::chrono::seconds(90);
constexpr base::Duration kToldWithin = std::chrono::seconds(2);

scheduler::ClusterConfig ConfigOf(const ClusterShape& shape) {
  scheduler::ClusterConfig config = shape.scheduler;
  if (shape.sabotage == Sabotage::kFailsForOneLoss) config.max_lost_workers = 1;
  return config;
}

}  // namespace

// ---- scheduler ----------------------------------------------------------------------------------

SimScheduler::SimScheduler(Cluster& cluster, Incarnation id)
    : Process(id),
      machine(ConfigOf(cluster.shape()), id),
      judge(cluster.shape().scheduler, cluster.world.now()),
      cluster_(cluster) {}

void SimScheduler::Wake() { machine.OnTime(cluster_.world.now()); }

void SimScheduler::Disconnect(Incarnation peer) {
  connections.erase(peer);
  machine.OnPeerDisconnected(peer, cluster_.world.now());
}

void SimScheduler::TellLost(Incarnation worker, Incarnation lost) {
  if (worker == lost || !cluster_.workers.contains(worker)) return;
  cluster_.ToPeer(*this, worker,
                  [&c = cluster_, worker, lost] { c.workers.at(worker)->OnPeerLost(lost); });
}

bool SimScheduler::NoteLost(Incarnation worker) {
  if (!lost_.insert(worker).second) return false;
  std::set<scheduler::RequestId> held = cluster_.held_at_death[worker];
  if (auto it = cluster_.workers.find(worker); it != cluster_.workers.end()) {
    for (const scheduler::TaskReport& task : it->second->stage.Report(true).tasks) {
      held.insert(task.request);
    }
  }
  judge.WorkerLost(worker, held, cluster_.world.now());
  return true;
}

// A hello of one that obeyed a higher scheduler makes this one start again.
template <typename Hello>
void SimScheduler::Greet(Hello hello) {
  const scheduler::ClusterSnapshot before = machine.Snapshot(cluster_.world.now());
  hello();
  if (!before.recovering && machine.id() != before.id) judge.Forget(cluster_.world.now());
}

void SimScheduler::Handle(const scheduler::WorkerHello& hello) {
  const base::TimePoint now = cluster_.world.now();
  const Incarnation worker = hello.profile.incarnation;
  if (lost_.contains(worker)) {
    // It ends, and its supervisor starts it again as another.
    connections.erase(worker);
    cluster_.world.At(cluster_.world.Delay(), [&cluster = cluster_, worker] {
      if (cluster.workers.contains(worker)) cluster.KillWorker(worker);
    });
    return;
  }
  for (Incarnation peer : hello.lost_peers) {
    if (!lost_.contains(peer)) machine.OnPeerLost(peer, now);
  }
  Act();
  Greet([&] { machine.OnWorkerConnected(hello, now); });
  judge.WorkerIs(worker, hello.draining ? scheduler::Roles() : hello.profile.roles, now);
  judge.WorkerHas(worker, hello.report);
  for (Incarnation peer : lost_) TellLost(worker, peer);
}

void SimScheduler::Handle(const scheduler::GatewayHello& hello) {
  Greet([&] { machine.OnGatewayConnected(hello, cluster_.world.now()); });
}

void SimScheduler::Handle(Incarnation worker, const scheduler::WorkerToScheduler& message) {
  const auto* report = std::get_if<scheduler::WorkerReport>(&message);
  if (report != nullptr && report->draining) {
    judge.WorkerDrains(worker, cluster_.world.now());
    // It is heard from, so that it is not taken for silent.
    if (cluster_.shape().sabotage == Sabotage::kWorksWhileDraining) {
      scheduler::WorkerReport deaf = *report;
      deaf.draining = false;
      return machine.OnWorkerMessage(worker, deaf, cluster_.world.now());
    }
  }
  machine.OnWorkerMessage(worker, message, cluster_.world.now());
  if (cluster_.world.random.Chance(cluster_.world.faults.repeat_control)) {
    machine.OnWorkerMessage(worker, message, cluster_.world.now());
  }
}

void SimScheduler::Handle(Incarnation gateway, const scheduler::GatewayToScheduler& message) {
  const auto* ended = std::get_if<scheduler::RequestEnded>(&message);
  if (ended != nullptr) judge.Ended(ended->request);
  machine.OnGatewayMessage(gateway, message, cluster_.world.now());
  if (cluster_.world.random.Chance(cluster_.world.faults.repeat_control)) {
    machine.OnGatewayMessage(gateway, message, cluster_.world.now());
  }
}

void SimScheduler::AfterEvent() {
  Act();
  machine.CheckInvariants();
}

void SimScheduler::Act() {
  for (const scheduler::ClusterAction& action : machine.TakeActions()) {
    const std::string wrong = judge.Says(action, cluster_.world.now());
    if (!wrong.empty() && !cluster_.IsOver(action)) cluster_.Violated(wrong);
    if (const auto* to = std::get_if<scheduler::ToWorker>(&action)) {
      cluster_.ToPeer(*this, to->worker, [&c = cluster_, worker = to->worker, m = to->message] {
        c.workers.at(worker)->Handle(m);
      });
    } else if (const auto* to = std::get_if<scheduler::ToGateway>(&action)) {
      cluster_.ToPeer(*this, to->gateway, [&c = cluster_, gateway = to->gateway, m = to->message] {
        c.gateways.at(gateway)->Handle(m);
      });
    } else {
      const auto& [peer, why] = std::get<scheduler::DropPeer>(action);
      if (why == scheduler::DropPeer::Why::kLost) {
        judge.GatewayLost(peer);
        if (NoteLost(peer)) {
          for (const auto& [worker, generation] : connections) TellLost(worker, peer);
        }
      }
      auto it = connections.find(peer);
      if (it != connections.end()) cluster_.BreakControl(peer, it->second);
    }
  }
}

// ---- cluster ------------------------------------------------------------------------------------

Cluster::Cluster(uint64_t seed, ClusterShape shape) : world(seed), shape_(std::move(shape)) {
  StartScheduler();
  for (int i = 0; i < shape_.gateways; ++i) StartGateway();
  for (const std::string& roles : shape_.roles) StartWorker(roles);
}

Cluster::~Cluster() = default;

ControlPeer* Cluster::FindPeer(Incarnation id) {
  return dynamic_cast<ControlPeer*>(world.Find(id));
}

void Cluster::Connect(Incarnation id) {
  world.At(world.Delay(), id, [this, id] {
    ControlPeer* peer = FindPeer(id);
    if (peer->scheduler != Incarnation()) return;
    if (schedulers.empty()) {
      world.At(milliseconds(200), id, [this, id] { Connect(id); });
      return;
    }
    auto chosen = schedulers.begin();
    std::advance(chosen, world.random.Below(schedulers.size()));
    const Incarnation scheduler = chosen->first;
    world.Reset(Stream::kControl, id, scheduler);
    world.Reset(Stream::kControl, scheduler, id);
    peer->scheduler = scheduler;
    const uint64_t generation = ++peer->generation;
    auto hello = peer->Hello();
    world.Send(
        Stream::kControl, id, scheduler,
        [this, id, scheduler, generation, hello] {
          SimScheduler& at = *schedulers.at(scheduler);
          at.connections[id] = generation;
          hello(at);
        },
        [this, id, generation] { BreakControl(id, generation); });
  });
}

void Cluster::BreakControl(Incarnation id, uint64_t generation) {
  // The scheduler's side.
  for (auto& [incarnation, scheduler] : schedulers) {
    world.At(milliseconds(1), incarnation, [this, incarnation = incarnation, id, generation] {
      SimScheduler& at = *schedulers.at(incarnation);
      auto it = at.connections.find(id);
      if (it == at.connections.end() || it->second != generation) return;
      at.Disconnect(id);
    });
  }
  ControlPeer* peer = FindPeer(id);
  if (peer == nullptr || peer->generation != generation) return;
  if (peer->scheduler == Incarnation()) return;
  ++peer->generation;
  peer->scheduler = Incarnation();
  world.At(base::Duration(0), id, [this, id] { FindPeer(id)->OnControlLost(); });
  world.At(milliseconds(world.random.Between(50, 300)), id, [this, id] { Connect(id); });
}

void Cluster::ToScheduler(ControlPeer& peer, ToMachine deliver) {
  if (peer.scheduler == Incarnation()) return;
  const Incarnation id = peer.id(), scheduler = peer.scheduler;
  const uint64_t generation = peer.generation;
  world.Send(
      Stream::kControl, id, scheduler,
      [this, id, scheduler, generation, deliver] {
        SimScheduler& at = *schedulers.at(scheduler);
        auto it = at.connections.find(id);
        if (it != at.connections.end() && it->second == generation) deliver(at);
      },
      [this, id, generation] { BreakControl(id, generation); });
}

void Cluster::ToPeer(SimScheduler& from, Incarnation id, std::function<void()> deliver) {
  auto it = from.connections.find(id);
  if (it == from.connections.end()) return;
  const uint64_t generation = it->second;
  const auto break_it = [this, id, generation] { BreakControl(id, generation); };
  world.Send(
      Stream::kControl, from.id(), id,
      [this, id, generation, sender = from.machine.id(), deliver, break_it] {
        ControlPeer* peer = FindPeer(id);
        if (peer->generation != generation) return;
        if (sender < peer->highest) return break_it();
        peer->highest = sender;
        deliver();
      },
      break_it);
}

void Cluster::StartWorker(const std::string& roles) {
  const Incarnation id = world.NewIncarnation();
  workers[id] = std::make_unique<SimWorker>(*this, id, roles, shape_);
  world.Add(workers[id].get());
  Connect(id);
}

// What it has said and nobody has heard goes with its streams: a hello would outlive it.
void Cluster::Bury(Incarnation id) {
  world.Remove(id);
  for (const auto& [scheduler, machine] : schedulers) world.Reset(Stream::kControl, id, scheduler);
}

void Cluster::EndWorker(Incarnation id) {
  const uint64_t generation = workers.at(id)->generation;
  for (const scheduler::TaskReport& task : workers.at(id)->stage.Report(true).tasks) {
    held_at_death[id].insert(task.request);
  }
  Bury(id);
  workers.erase(id);
  world.MovePieces();
  BreakControl(id, generation);
}

void Cluster::KillWorker(Incarnation id) {
  const std::string roles = workers.at(id)->roles;
  EndWorker(id);
  world.At(milliseconds(world.random.Between(100, 2000)), [this, roles] { StartWorker(roles); });
}

void Cluster::StartGateway() {
  const Incarnation id = world.NewIncarnation();
  gateways[id] = std::make_unique<SimGateway>(*this, id);
  world.Add(gateways[id].get());
  Connect(id);
}

void Cluster::EndGateway(Incarnation id) {
  const uint64_t generation = gateways.at(id)->generation;
  died_with_gateway += static_cast<int>(gateways.at(id)->delivery.num_live());
  Bury(id);
  gateways.erase(id);
  BreakControl(id, generation);
}

void Cluster::KillGateway(Incarnation id) {
  EndGateway(id);
  world.At(milliseconds(world.random.Between(100, 2000)), [this] { StartGateway(); });
}

void Cluster::DrainWorker(Incarnation id, Teller teller) {
  StartWorker(workers.at(id)->roles);
  world.At(milliseconds(500), id, [this, id, teller] {
    ControlPeer* worker = FindPeer(id);
    auto scheduler = schedulers.find(worker->scheduler);
    if (teller == Teller::kScheduler && scheduler != schedulers.end()) {
      world.At(world.Delay(), scheduler->first, [this, id, at = scheduler->second.get()] {
        at->judge.WorkerDrains(id, world.now());
        at->machine.Drain(id, world.now());
      });
    } else {
      workers.at(id)->stage.Handle(scheduler::DrainWorker{}, world.now());
    }
    EndWhenIdle(id, world.now() + kDrainsWithin);
  });
}

void Cluster::DrainGateway(Incarnation id) {
  StartGateway();
  gateways.at(id)->draining = true;
  EndWhenIdle(id, world.now() + kDrainsWithin);
}

void Cluster::EndWhenIdle(Incarnation id, base::TimePoint until) {
  world.At(milliseconds(50), id, [this, id, until] {
    if (auto gateway = gateways.find(id); gateway != gateways.end()) {
      if (gateway->second->delivery.num_live() == 0) {
        ++drained;
        return EndGateway(id);
      }
    } else if (SimWorker& worker = *workers.at(id); worker.stage.draining() && worker.IsIdle()) {
      ++drained;
      return EndWorker(id);
    }
    if (world.now() < until) {
      // The scheduler that knew of it may be gone.
      const auto worker = workers.find(id);
      if (worker != workers.end() && until - world.now() < kDrainsWithin - kToldWithin) {
        worker->second->stage.Handle(scheduler::DrainWorker{}, world.now());
      }
      return EndWhenIdle(id, until);
    }
    Violated(absl::StrCat("a draining process still holds something: ", Describe()));
  });
}

void Cluster::Freeze(Incarnation id, base::Duration time) {
  Process* process = world.Find(id);
  if (process == nullptr) return;
  // Never earlier than before: what waits for its end must not be overtaken.
  process->frozen_until = std::max(process->frozen_until, world.now() + time);
}

void Cluster::StartScheduler() {
  const Incarnation id = world.NewIncarnation();
  schedulers[id] = std::make_unique<SimScheduler>(*this, id);
  world.Add(schedulers[id].get());
}

void Cluster::KillScheduler(Incarnation id) {
  world.Remove(id);
  schedulers.erase(id);
  std::vector<std::pair<Incarnation, uint64_t>> broken;
  for (const auto& [peer, worker] : workers) {
    if (worker->scheduler == id) broken.emplace_back(peer, worker->generation);
  }
  for (const auto& [peer, gateway] : gateways) {
    if (gateway->scheduler == id) broken.emplace_back(peer, gateway->generation);
  }
  for (const auto& [peer, generation] : broken) BreakControl(peer, generation);
}

void Cluster::Submit() {
  std::vector<SimGateway*> open;
  for (const auto& [id, gateway] : gateways) {
    if (!gateway->draining) open.push_back(gateway.get());
  }
  if (open.empty()) return;
  SimGateway* gateway = open[world.random.Below(open.size())];
  world.At(base::Duration(0), gateway->id(), [this, gateway] {
    ++submitted;
    gateway->Submit(cancel_chance, deadline_chance);
  });
}

bool Cluster::IsOver(const scheduler::ClusterAction& action) const {
  const auto* to = std::get_if<scheduler::ToGateway>(&action);
  const auto* failed =
      to == nullptr ? nullptr : std::get_if<scheduler::RequestFailed>(&to->message);
  if (failed == nullptr) return false;
  if (absl::IsInternal(failed->status) && may_fail.contains(failed->request)) return true;
  auto gateway = gateways.find(to->gateway);
  return gateway == gateways.end() || gateway->second->IsOver(failed->request);
}

bool Cluster::Step(base::TimePoint until) { return world.Step(until); }

std::string Cluster::Describe() const {
  std::string text;
  for (const auto& [id, scheduler] : schedulers) {
    const auto snapshot = scheduler->machine.Snapshot(world.now());
    const scheduler::RequestCounts& counts = snapshot.requests;
    absl::StrAppend(&text, "scheduler ", id.value(), ": term ", snapshot.id.term, ", workers ",
                    snapshot.workers.size(), ", gateways ", snapshot.gateways.size(), ", queued ",
                    counts.queued, ", prefilling ", counts.prefilling, ", awaiting decode ",
                    counts.awaiting_decode, ", handing over ", counts.handing_over, ", decoding ",
                    counts.decoding, ", finishing ", counts.finishing);
    absl::StrAppend(&text, snapshot.recovering ? ", recovering\n" : "\n");
  }
  for (const auto& [id, worker] : workers) {
    absl::StrAppend(&text, "worker ", id.value(), " (", worker->roles, "): scheduler ",
                    worker->scheduler.value(), ", free blocks ",
                    worker->stage.Report(true).free_kv_blocks, "\n");
    for (const scheduler::TaskReport& task : worker->stage.Report(true).tasks) {
      absl::StrAppend(&text, "worker ", id.value(), ": ", ToString(task.stage), " ",
                      ToString(task.task), " of ", ToString(task.request), " state ",
                      static_cast<int>(task.state), " epoch ", task.epoch.value(), " item ",
                      task.item, " consumer ", task.consumer.number, " producer ",
                      task.producer.number, " landed ", task.items_landed.size(), "\n");
    }
  }
  return text;
}

std::string Cluster::NotAtRest() const {
  for (const auto& [id, gateway] : gateways) {
    if (gateway->delivery.num_live() > 0) {
      return absl::StrCat("gateway ", id.value(), " has ", gateway->delivery.num_live(),
                          " live requests; ", Describe());
    }
  }
  for (const auto& [id, worker] : workers) {
    if (worker->IsIdle()) continue;
    const scheduler::StageStats stats = worker->stage.Stats();
    return absl::StrCat("worker ", id.value(), " (", worker->roles, ") holds ", stats.tasks,
                        " tasks, ", stats.kv_blocks, " blocks, ", stats.embedding_slots, " slots, ",
                        stats.in_flight, " in flight, ", stats.staged_bytes, " staged bytes, ",
                        stats.landed_bytes, " landed bytes, ", stats.transfers, " transfers, ",
                        worker->executor.num_patches(), " patches");
  }
  return SchedulersNotAtRest();
}

std::string Cluster::SchedulersNotAtRest() const {
  for (const auto& [id, scheduler] : schedulers) {
    const scheduler::ClusterSnapshot snapshot = scheduler->machine.Snapshot(world.now());
    const scheduler::RequestCounts& counts = snapshot.requests;
    if (counts.queued + counts.prefilling + counts.awaiting_decode + counts.handing_over +
            counts.decoding + counts.finishing >
        0) {
      return absl::StrCat("scheduler ", id.value(), " has requests; ", Describe());
    }
    for (const scheduler::WorkerSnapshot& worker : snapshot.workers) {
      const bool free = worker.free_kv_blocks == worker.profile.kv_blocks &&
                        worker.free_embedding_slots == worker.profile.embedding_slots &&
                        worker.free_sequences == worker.profile.max_sequences;
      if (free && worker.tasks == std::array<int32_t, scheduler::kNumStages>{}) continue;
      return absl::StrCat("scheduler ", id.value(), " has promised something of worker ",
                          worker.profile.incarnation.value());
    }
    const size_t peers = workers.size() + gateways.size();
    if (schedulers.size() == 1 && snapshot.workers.size() + snapshot.gateways.size() != peers) {
      return absl::StrCat("scheduler ", id.value(), " misses a peer; ", Describe());
    }
  }
  return "";
}

}  // namespace triptych::simulation
