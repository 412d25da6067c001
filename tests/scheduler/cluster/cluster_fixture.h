#pragma once

// A cluster around one ClusterScheduler, told as a script: connect, submit, let workers answer.
// Messages are plain values and time moves by hand. FakeWorker keeps the tasks it was given, as a
// worker's ledger would, and says nothing by itself.

#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline Roles RolesOf(const std::string& text) {
  Roles roles;
  for (char c : text) {
    if (c == 'E') roles.add(Stage::kEncode);
    if (c == 'P') roles.add(Stage::kPrefill);
    if (c == 'D') roles.add(Stage::kDecode);
  }
  return roles;
}

inline WorkerProfile ProfileOf(uint64_t incarnation, const std::string& roles) {
  return {.name = "worker-" + std::to_string(incarnation),
          .incarnation = Incarnation(incarnation),
          .roles = RolesOf(roles),
          .fingerprint = "model",
          .address = "host:" + std::to_string(incarnation),
          .kv_block_tokens = 16,
          .kv_blocks = 256,
          .embedding_slots = 1024,
          .max_sequences = 16,
          .max_encodes = 8};
}

// What a worker has been told and holds.
struct FakeWorker {
  WorkerProfile profile;
  uint64_t handled = 0;
  Amount free;
  std::map<TaskId, TaskReport> tasks;
  std::map<TaskId, Amount> held;
  std::vector<SchedulerToWorker> inbox;  // everything, in order
  std::vector<Incarnation> peers;        // that it exchanges with
  std::array<StageLoad, kNumStages> load{};

  void Take(const SchedulerToWorker& message);
  WorkerReport Report() const;
  template <typename T>
  std::vector<T> All() const {
    std::vector<T> found;
    for (const auto& message : inbox) {
      if (const auto* one = std::get_if<T>(&message)) found.push_back(*one);
    }
    return found;
  }
  template <typename T>
  T Last() const {
    const std::vector<T> found = All<T>();
    REQUIRE_FALSE(found.empty());
    return found.back();
  }
};

inline void FakeWorker::Take(const SchedulerToWorker& message) {
  ++handled;
  inbox.push_back(message);
  const auto hold = [this](const TaskReport& report, const Amount& need) {
    tasks[report.task] = report;
    held[report.task] = need;
    free -= need;
  };
  if (const auto* encode = std::get_if<AssignEncode>(&message)) {
    const bool in_place = encode->consumer_worker.incarnation == profile.incarnation;
    hold({.task = encode->task,
          .request = encode->request,
          .stage = Stage::kEncode,
          .item = encode->item,
          .consumer = encode->consumer},
         {0, in_place ? 0 : profile.SlotsFor(encode->num_tokens), 0});
  } else if (const auto* prefill = std::get_if<AssignPrefill>(&message)) {
    int32_t slots = 0;
    for (int32_t tokens : prefill->item_tokens) slots += profile.SlotsFor(tokens);
    hold({.task = prefill->task,
          .request = prefill->request,
          .stage = Stage::kPrefill,
          .epoch = prefill->epoch,
          .prompt_tokens = prefill->prompt_tokens},
         {(prefill->prompt_tokens + 15) / 16, slots, 1});
  } else if (const auto* decode = std::get_if<AssignDecode>(&message)) {
    const bool in_place = decode->producer_worker.incarnation == profile.incarnation;
    hold({.task = decode->task,
          .request = decode->request,
          .stage = Stage::kDecode,
          .epoch = decode->epoch,
          .producer = decode->producer},
         in_place ? Amount{} : Amount{(decode->prompt_tokens + 16) / 16, 0, 1});
  } else if (const auto* rebind = std::get_if<Rebind>(&message)) {
    auto it = tasks.find(rebind->consumer);
    if (it != tasks.end()) it->second.inputs.push_back(rebind->input);
  } else if (const auto* bind = std::get_if<BindConsumer>(&message)) {
    auto it = tasks.find(bind->producer);
    if (it != tasks.end()) it->second.consumer = bind->consumer;
  } else if (const auto* release = std::get_if<ReleaseTask>(&message)) {
    if (tasks.erase(release->task) == 0) return;
    free += held.at(release->task);
    held.erase(release->task);
  }
}

inline WorkerReport FakeWorker::Report() const {
  WorkerReport report{.free_kv_blocks = free.kv_blocks,
                      .free_embedding_slots = free.embedding_slots,
                      .free_sequences = free.sequences,
                      .handled_sequence = handled,
                      .has_inventory = true};
  for (const auto& [id, task] : tasks) report.tasks.push_back(task);
  report.peers = peers;
  for (int i = 0; i < kNumStages; ++i) report.load[i] = load[static_cast<size_t>(i)];
  return report;
}

class ClusterFixture {
 public:
  explicit ClusterFixture(ClusterConfig config = {}) : scheduler(config, Incarnation(1000)) {}

  void Worker(uint64_t incarnation, const std::string& roles) {
    Worker(ProfileOf(incarnation, roles));
  }
  void Worker(const WorkerProfile& profile, SchedulerId highest = {}) {
    FakeWorker& worker = workers[profile.incarnation.value()];
    if (worker.profile.incarnation == Incarnation()) {
      worker.profile = profile;
      worker.free = {profile.kv_blocks, profile.embedding_slots, profile.max_sequences};
    }
    worker.handled = 0;
    scheduler.OnWorkerConnected(
        {.profile = profile, .highest_seen = highest, .report = worker.Report()}, now);
    Drain();
  }
  // Unless told otherwise it knows of nobody but itself: so everybody has come.
  void Gateway(uint64_t incarnation, std::vector<SubmitRequest> live = {},
               std::vector<Incarnation> known = {Incarnation(kGateway)}, SchedulerId highest = {}) {
    scheduler.OnGatewayConnected({.name = "gateway",
                                  .incarnation = Incarnation(incarnation),
                                  .address = "gateway:1",
                                  .highest_seen = highest,
                                  .known_peers = std::move(known),
                                  .live = std::move(live)},
                                 now);
    Drain();
  }
  static SubmitRequest Text(uint64_t number, int32_t tokens = 100) {
    return {.request = {Incarnation(kGateway), number},
            .fingerprint = "model",
            .tenant = "tenant",
            .prompt_tokens = tokens,
            .max_tokens = 32};
  }
  static SubmitRequest Pictures(uint64_t number, int items) {
    SubmitRequest submit = Text(number, 20 + 64 * items);
    for (int i = 0; i < items; ++i) {
      submit.items.push_back(
          {.media_bytes = 1000, .pixels = 50176, .patches = 256, .num_tokens = 64});
    }
    return submit;
  }
  void Submit(const SubmitRequest& submit) {
    scheduler.OnGatewayMessage(submit.request.gateway, submit, now);
    Drain();
  }
  void End(uint64_t number) {
    scheduler.OnGatewayMessage(Incarnation(kGateway), RequestEnded{{Incarnation(kGateway), number}},
                               now);
    Drain();
  }
  void Say(uint64_t worker, const WorkerToScheduler& message) {
    scheduler.OnWorkerMessage(Incarnation(worker), message, now);
    Drain();
  }
  // Its stream breaks; see Worker and Gateway for its return.
  void Disconnect(uint64_t peer) {
    scheduler.OnPeerDisconnected(Incarnation(peer), now);
    Drain();
  }
  void Lose(uint64_t peer) {
    scheduler.OnPeerLost(Incarnation(peer), now);
    workers.erase(peer);
    Drain();
  }
  // Time passes in steps of 50 ms; everybody connected is heard unless `silent` names it.
  void Pass(base::Duration time, uint64_t silent = 0) { Pass(time, std::set<uint64_t>{silent}); }
  void Pass(base::Duration time, const std::set<uint64_t>& silent) {
    const base::TimePoint end = now + time;
    while (now < end) {
      now += milliseconds(50);
      for (auto& [id, worker] : workers) {
        if (!silent.contains(id)) scheduler.OnWorkerMessage(Incarnation(id), worker.Report(), now);
        Drain();
      }
      if (!silent.contains(kGateway)) {
        scheduler.OnGatewayMessage(Incarnation(kGateway), GatewayReport{}, now);
      }
      if (scheduler.NextDeadline() <= now) scheduler.OnTime(now);
      Drain();
    }
  }
  void Drain() {
    Act();
    scheduler.CheckInvariants();
  }
  void Act() {
    for (ClusterAction& action : scheduler.TakeActions()) {
      if (auto* to_worker = std::get_if<ToWorker>(&action)) {
        auto it = workers.find(to_worker->worker.value());
        if (it != workers.end()) it->second.Take(to_worker->message);
      } else if (auto* to_gateway = std::get_if<ToGateway>(&action)) {
        if (auto* failed = std::get_if<RequestFailed>(&to_gateway->message)) {
          failures[failed->request.number].push_back(*failed);
        } else if (auto* admitted = std::get_if<RequestAdmitted>(&to_gateway->message)) {
          ++admissions[admitted->request.number];
        } else if (auto* told = std::get_if<Membership>(&to_gateway->message)) {
          Membership& known = memberships[to_gateway->gateway.value()];
          if (told->whole) known.peers.clear();
          known.peers.insert(known.peers.end(), told->peers.begin(), told->peers.end());
          for (Incarnation gone : told->gone) std::erase(known.peers, gone);
          known.models = told->models;
        }
      } else {
        dropped.push_back(std::get<DropPeer>(action).peer.value());
      }
    }
  }
  // The code of the one terminal of a request; OK when it has none.
  absl::StatusCode Failure(uint64_t number) const {
    auto it = failures.find(number);
    if (it == failures.end()) return absl::StatusCode::kOk;
    REQUIRE(it->second.size() == 1);
    return it->second[0].status.code();
  }
  // The roles of a model as the gateway last heard of them, "EPD"; empty where none.
  std::string RolesTold(const std::string& fingerprint = "model") const {
    std::string roles;
    for (const ModelRoles& model : memberships.at(kGateway).models) {
      if (model.fingerprint != fingerprint) continue;
      for (Stage stage : {Stage::kEncode, Stage::kPrefill, Stage::kDecode}) {
        if (model.roles.has(stage)) roles += "EPD"[static_cast<int>(stage)];
      }
    }
    return roles;
  }
  RequestCounts Counts() const { return scheduler.Snapshot(now).requests; }
  int Tasks(uint64_t worker) const { return static_cast<int>(workers.at(worker).tasks.size()); }

  static constexpr uint64_t kGateway = 500;
  base::TimePoint now{std::chrono::hours(1000)};
  ClusterScheduler scheduler;
  std::map<uint64_t, FakeWorker> workers;
  std::map<uint64_t, std::vector<RequestFailed>> failures;
  std::map<uint64_t, int> admissions;
  std::map<uint64_t, Membership> memberships;  // the last that each gateway heard
  std::vector<uint64_t> dropped;
};

}  // namespace triptych::scheduler
