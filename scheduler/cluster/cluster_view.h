#pragma once

// What the policies may look at: the workers of one model fingerprint, kept up to date event by
// event. Policies are stateless functions over a const view.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/cluster/ledger.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

struct WorkerView {
  explicit WorkerView(const WorkerProfile& worker_profile, const Amount& free)
      : profile(worker_profile), ledger(free) {}

  WorkerProfile profile;
  bool draining = false;
  bool missing = false;  // its stream is broken, or it is silent: it may come back
  Ledger ledger;
  std::array<double, kNumStages> cost_per_second{};  // learned; 0 while unknown
  // After a refusal nothing of that stage is sent before this.
  std::array<base::TimePoint, kNumStages> closed_until{};

  bool IsOpen(Stage stage, base::TimePoint now) const {
    return !missing && closed_until[static_cast<int>(stage)] <= now;
  }
  Amount total() const {
    return {profile.kv_blocks, profile.embedding_slots, profile.max_sequences};
  }
  // KV blocks that hold `tokens`.
  int32_t BlocksFor(int32_t tokens) const {
    const int32_t size = profile.kv_block_tokens > 0 ? profile.kv_block_tokens : 1;
    return static_cast<int32_t>((int64_t{tokens} + size - 1) / size);
  }
};

struct ClusterView {
  // Workers with that role that are not draining, by incarnation. Borrowed.
  std::array<std::vector<const WorkerView*>, kNumStages> workers;

  const std::vector<const WorkerView*>& of(Stage stage) const {
    return workers[static_cast<int>(stage)];
  }
};

// A policy's answer. Without a worker: kWait means that one will have room in time, kNever that no
// worker of the view is large enough even when empty.
struct Choice {
  const WorkerView* worker = nullptr;
  enum class Otherwise : uint8_t { kWait, kNever } otherwise = Otherwise::kWait;
};

// Seconds until `worker` would have done `cost` more of `stage`, at its learned speed; where that
// is unknown, at the mean of its peers', or 1 a second.
double PredictedSeconds(const ClusterView& view, const WorkerView& worker, Stage stage,
                        int64_t cost);

}  // namespace triptych::scheduler
