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
#include "scheduler/cluster/size_classes.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/rank.h"

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
  bool in_view = false;  // of its pool: it takes work
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
  bool told = false;  // the whole membership

  PeerAddress address() const { return {hello.incarnation, hello.address}; }
};

// Everything of one model fingerprint.
struct Pool {
  ClusterView view;
  bool seen_worker = false;
  SizeClasses sizes;
  Roles roles;  // of the workers that take work, those that are missing for a while too
  // Since when no worker has the role; kNever where one has.
  std::array<base::TimePoint, kNumStages> missing_since{};
  // Requests with items wait apart, so that text passes them while encoders are full.
  std::set<Rank> with_items;
  std::set<Rank> text_only;
  std::set<Rank> aside;  // too large for the workers of now, but not for all that may come back
  std::set<Rank> want_encoder;
  std::set<Rank> want_decode;  // a decode on another worker
  // A decode on the worker where their KV lies: what it holds is of no use to anybody else.
  std::map<Incarnation, std::set<Rank>> want_decode_at_home;
  double typical_tokens = 16;     // of an answer, learned
  base::TimePoint thorough_at{};  // the last time that choices looked at everybody
  bool dirty = false;             // something may be placed
};

}  // namespace triptych::scheduler
