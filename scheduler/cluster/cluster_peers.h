#pragma once

// The processes that the cluster scheduler knows, and the models that they serve.

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "scheduler/cluster/cluster_view.h"
#include "scheduler/cluster/presence.h"
#include "scheduler/cluster/waiting_queue.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

struct Pool;

// A task in a worker's inventory that no request of ours claims.
struct UnclaimedTask {
  TaskReport report;
  base::TimePoint release_at;
  bool going = false;  // its release is on its way: it tells of an epoch, and must not be adopted
};

struct Worker {
  Worker(const WorkerProfile& profile, const Amount& free) : view(profile, free) {}

  WorkerView view;
  Pool* pool = nullptr;  // of its fingerprint; never null once connected
  Presence presence;
  uint64_t sequence = 0;  // of the last message sent since its hello
  uint64_t handled = 0;   // of the last one that it has said to have handled
  bool lost = false;
  // Until a task is accepted; until one succeeds.
  std::array<int, kNumStages> refusals_in_a_row{}, failures_in_a_row{};
  std::array<StageLoad, kNumStages> load{};
  std::set<TaskId> tasks;  // that we assigned to it, or adopted
  std::map<std::pair<RequestId, TaskId>, UnclaimedTask> unclaimed;
  // Told to be released, by the sequence of that message, until the worker has handled it: an
  // inventory may still show them.
  std::map<uint64_t, TaskId> releasing;

  PeerAddress address() const { return {view.profile.incarnation, view.profile.address}; }
};

struct Gateway {
  GatewayHello hello;  // without `live`
  Presence presence;
  std::set<RequestId> requests;

  PeerAddress address() const { return {hello.incarnation, hello.address}; }
};

// Place in a queue of requests that have a prefill worker and want another: by priority, then age.
struct Turn {
  int32_t priority = 0;
  uint64_t arrival = 0;
  RequestId request;
  bool operator<(const Turn& other) const {
    if (priority != other.priority) return priority > other.priority;
    return arrival < other.arrival;
  }
};

// Everything of one model fingerprint.
struct Pool {
  ClusterView view;
  bool seen_worker = false;
  Roles roles;  // of the workers that take work, those that are missing for a while too
  // Since when no worker has the role; kNever where one has.
  std::array<base::TimePoint, kNumStages> missing_since{};
  // Requests with items wait apart, so that text passes them while encoders are full.
  WaitingQueue with_items;
  WaitingQueue text_only;
  std::set<Turn> want_encoder;
  std::set<Turn> want_decode;
  bool dirty = false;  // something may be placed
};

}  // namespace triptych::scheduler
