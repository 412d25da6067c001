#pragma once

// What the policies may look at: the workers of one model fingerprint, kept up to date event by
// event. Policies are stateless functions over a const view.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/cluster/ledger.h"
#include "scheduler/cluster/link_table.h"
#include "scheduler/cluster/stage_index.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

class ClusterView;

struct WorkerView final : private Ledger::Watcher {
  WorkerView(const WorkerProfile& worker_profile, const Amount& free)
      : profile(worker_profile), ledger(free, this) {}

  const WorkerProfile profile;
  bool draining = false;
  bool missing = false;  // its stream is broken, or it is silent: it may come back
  Ledger ledger;
  struct Speed {
    double fixed_seconds = 0;
    double seconds_per_unit = 0;
    friend bool operator==(const Speed&, const Speed&) = default;
  };
  std::array<Speed, kNumStages> speed{};  // learned; seconds_per_unit 0 while unknown
  // After a refusal nothing of that stage is sent before this.
  std::array<base::TimePoint, kNumStages> closed_until{};
  std::array<bool, kNumStages> closed{};  // by a refusal, until it is opened again
  ClusterView* view = nullptr;            // that it is in

  bool IsOpen(Stage stage) const { return !missing && !closed[static_cast<int>(stage)]; }
  // Open, and not so full that nothing at all could fit.
  bool MayTake(Stage stage) const;
  Amount total() const {
    return {profile.kv_blocks, profile.embedding_slots, profile.max_sequences};
  }
  // KV blocks that hold `tokens`.
  int32_t BlocksFor(int32_t tokens) const {
    const int32_t size = profile.kv_block_tokens > 0 ? profile.kv_block_tokens : 1;
    return static_cast<int32_t>((int64_t{tokens} + size - 1) / size);
  }
  // To be called when something of it has changed that is not its ledger.
  void Changed() override;
};

class ClusterView {
 public:
  ClusterView() = default;
  ClusterView(const ClusterView&) = delete;
  ClusterView& operator=(const ClusterView&) = delete;

  // Borrowed until Remove: a worker that takes work in all its roles.
  void Add(WorkerView* worker);
  void Remove(WorkerView* worker);

  const StageIndex& of(Stage stage) const { return stages_[static_cast<int>(stage)]; }
  // The worker with that role that is in the view, or null.
  const WorkerView* Find(Incarnation worker, Stage stage) const;
  // Some worker of the stage can exchange with `peer`, or is it; true where the stage has none.
  bool Reaches(Incarnation peer, Stage stage, base::TimePoint now) const;

  LinkTable links;
  bool thorough = true;  // a choice may look at everybody
  // One empty worker of each kind that is in the view, by stage: what fits none of them is too
  // large.
  std::array<std::vector<const WorkerView*>, kNumStages> kinds;

 private:
  friend struct WorkerView;
  std::array<StageIndex, kNumStages> stages_{
      StageIndex(Stage::kEncode), StageIndex(Stage::kPrefill), StageIndex(Stage::kDecode)};
};

// A policy's answer. Without a worker: kWait means that one will have room in time, kNever that no
// worker of the view is large enough even when empty.
struct Choice {
  const WorkerView* worker = nullptr;
  enum class Otherwise : uint8_t { kWait, kNever } otherwise = Otherwise::kWait;
};

// Seconds until `worker` would have done `cost` more of `stage` beside what it has, by its learned
// time of a step; where that is unknown, by the mean of its peers', or a second a unit. For decode
// it is the time of a token.
double PredictedSeconds(const ClusterView& view, const WorkerView& worker, Stage stage,
                        int64_t cost);

}  // namespace triptych::scheduler
