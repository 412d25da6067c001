#pragma once

// What the cluster scheduler wants done, in order, and what `triptych status` shows.

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/ids.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

// Messages to one worker are numbered from 1 since its last hello, in the order of their actions.
struct ToWorker {
  Incarnation worker;
  SchedulerToWorker message;
};

struct ToGateway {
  Incarnation gateway;
  SchedulerToGateway message;
};

// Close the stream of this peer, if it has one.
struct DropPeer {
  Incarnation peer;
  enum class Why : uint8_t {
    kLost,      // for ever: everybody is to be told, and a worker of this incarnation to be refused
    kAskAgain,  // this scheduler takes a higher term: the peer shall say hello again
  } why = Why::kLost;
};

using ClusterAction = std::variant<ToWorker, ToGateway, DropPeer>;

struct WorkerSnapshot {
  WorkerProfile profile;
  bool draining = false;
  base::Duration silent_for{0};
  int32_t free_kv_blocks = 0;
  int32_t free_embedding_slots = 0;
  int32_t free_sequences = 0;
  std::array<int32_t, kNumStages> tasks{};
  std::array<StageLoad, kNumStages> load{};  // as last reported
};

struct GatewaySnapshot {
  std::string name;
  Incarnation incarnation;
  std::string address;
  std::string admin;
  int64_t pid = 0;
  bool draining = false;
  base::Duration silent_for{0};
  int64_t live_requests = 0;  // that this scheduler knows of
};

struct RequestCounts {
  int64_t queued = 0;
  int64_t prefilling = 0;
  int64_t awaiting_decode = 0;
  int64_t handing_over = 0;
  int64_t decoding = 0;
  int64_t finishing = 0;
};

struct ClusterSnapshot {
  SchedulerId id;
  bool recovering = false;
  std::vector<WorkerSnapshot> workers;    // by incarnation
  std::vector<GatewaySnapshot> gateways;  // by incarnation
  RequestCounts requests;
  int64_t queued_prefill_tokens = 0;
  int64_t queued_patches = 0;
  // By the stage that is waited for: since the oldest such request was admitted.
  std::array<base::Duration, kNumStages> oldest_wait{};
  // Since the start.
  int64_t admitted = 0;
  int64_t restarts = 0;
  int64_t preemptions = 0;  // among them
  int64_t workers_lost = 0;
  int64_t streams_lost = 0;  // of peers that were not given up by then
  int64_t cut_offs = 0;      // times that most peers went missing at once
};

}  // namespace triptych::scheduler
