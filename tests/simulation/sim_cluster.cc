#include "tests/simulation/sim_cluster.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/simulation/sim_gateway.h"
#include "tests/simulation/sim_worker.h"

namespace triptych::simulation {

using scheduler::ClusterScheduler;
using std::chrono::milliseconds;

// ---- scheduler ----------------------------------------------------------------------------------

SimScheduler::SimScheduler(Cluster& cluster, Incarnation id)
    : Process(id), machine({}, id), cluster_(cluster) {}

void SimScheduler::Wake() { machine.OnTime(cluster_.world.now()); }

void SimScheduler::AfterEvent() {
  for (const scheduler::ClusterAction& action : machine.TakeActions()) {
    if (const auto* to = std::get_if<scheduler::ToWorker>(&action)) {
      cluster_.ToPeer(*this, to->worker, [&c = cluster_, worker = to->worker, m = to->message] {
        c.workers.at(worker)->Handle(m);
      });
    } else if (const auto* to = std::get_if<scheduler::ToGateway>(&action)) {
      cluster_.ToPeer(*this, to->gateway, [&c = cluster_, gateway = to->gateway, m = to->message] {
        c.gateways.at(gateway)->Handle(m);
      });
    } else {
      const Incarnation peer = std::get<scheduler::DropPeer>(action).peer;
      auto it = connections.find(peer);
      if (it != connections.end()) cluster_.BreakControl(peer, it->second);
    }
  }
}

// ---- cluster ------------------------------------------------------------------------------------

Cluster::Cluster(uint64_t seed, ClusterShape shape) : world(seed), shape_(std::move(shape)) {
  StartScheduler();
  for (int i = 0; i < shape_.gateways; ++i) {
    const Incarnation id = world.NewIncarnation();
    gateways[id] = std::make_unique<SimGateway>(*this, id);
    world.Add(gateways[id].get());
    Connect(id);
  }
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
          hello(at.machine, world.now());
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
      at.connections.erase(it);
      at.machine.OnPeerLost(id, world.now());
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

void Cluster::ToScheduler(ControlPeer& peer,
                          std::function<void(ClusterScheduler&, base::TimePoint)> deliver) {
  if (peer.scheduler == Incarnation()) return;
  const Incarnation id = peer.id(), scheduler = peer.scheduler;
  const uint64_t generation = peer.generation;
  world.Send(
      Stream::kControl, id, scheduler,
      [this, id, scheduler, generation, deliver] {
        SimScheduler& at = *schedulers.at(scheduler);
        auto it = at.connections.find(id);
        if (it != at.connections.end() && it->second == generation) {
          deliver(at.machine, world.now());
        }
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

void Cluster::KillWorker(Incarnation id) {
  const std::string roles = workers.at(id)->roles;
  const uint64_t generation = workers.at(id)->generation;
  world.Remove(id);
  workers.erase(id);
  world.MovePieces();
  BreakControl(id, generation);
  for (auto& [other, worker] : workers) {
    world.At(milliseconds(world.random.Between(1, 500)), other,
             [this, id, other = other] { workers.at(other)->stage.OnPeerLost(id, world.now()); });
  }
  world.At(milliseconds(world.random.Between(100, 2000)), [this, roles] { StartWorker(roles); });
}

void Cluster::Freeze(Incarnation id, base::Duration time) {
  if (Process* process = world.Find(id)) process->frozen_until = world.now() + time;
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
  auto it = gateways.begin();
  std::advance(it, world.random.Below(gateways.size()));
  ++submitted;
  world.At(base::Duration(0), it->first,
           [this, gateway = it->second.get()] { gateway->Submit(cancel_chance, deadline_chance); });
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
    const scheduler::StageStats stats = worker->stage.Stats();
    if (stats == scheduler::StageStats() && worker->executor.num_buffers() == 0 &&
        worker->executor.num_patches() == 0) {
      continue;
    }
    return absl::StrCat("worker ", id.value(), " (", worker->roles, ") holds ", stats.tasks,
                        " tasks, ", stats.kv_blocks, " blocks, ", stats.embedding_slots, " slots, ",
                        stats.steps_in_flight, " steps, ", worker->executor.num_buffers(),
                        " buffers, ", worker->executor.num_patches(), " patches");
  }
  return "";
}

}  // namespace triptych::simulation
