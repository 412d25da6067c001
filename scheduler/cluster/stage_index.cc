#include "scheduler/cluster/stage_index.h"

#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

void StageIndex::Add(WorkerView* worker) {
  members_[worker->profile.incarnation] = worker;
  known_[worker->profile.incarnation] = {};
  Update(worker);
}

void StageIndex::Remove(WorkerView* worker) {
  const Incarnation incarnation = worker->profile.incarnation;
  auto it = known_.find(incarnation);
  if (it == known_.end()) return;
  if (it->second.open) open_.erase({it->second.seconds, incarnation, worker});
  if (it->second.unit > 0) --known_speeds_;
  fixed_sum_ -= it->second.fixed;
  unit_sum_ -= it->second.unit;
  known_.erase(it);
  members_.erase(incarnation);
}

void StageIndex::Update(WorkerView* worker) {
  const Incarnation incarnation = worker->profile.incarnation;
  auto it = known_.find(incarnation);
  if (it == known_.end()) return;
  Known& known = it->second;
  const auto [fixed, unit] = worker->speed[static_cast<int>(stage_)];
  if (fixed != known.fixed || unit != known.unit) {
    known_speeds_ += (unit > 0) - (known.unit > 0);
    fixed_sum_ += fixed - known.fixed;
    unit_sum_ += unit - known.unit;
    known.fixed = fixed;
    known.unit = unit;
  }
  const bool open = worker->MayTake(stage_);
  // With the least that could come, so that of idle ones the fastest is first.
  const double seconds = Seconds(*worker, worker->ledger.load(stage_) + 1);
  if (open == known.open && (!open || seconds == known.seconds)) return;
  if (known.open) open_.erase({known.seconds, incarnation, worker});
  known.open = open;
  known.seconds = seconds;
  if (open) open_.insert({seconds, incarnation, worker});
}

double StageIndex::Seconds(const WorkerView& worker, int64_t cost) const {
  if (cost == 0) return 0;
  auto [fixed, unit] = worker.speed[static_cast<int>(stage_)];
  if (unit <= 0) {
    fixed = known_speeds_ == 0 ? 0 : fixed_sum_ / known_speeds_;
    unit = known_speeds_ == 0 ? 1 : unit_sum_ / known_speeds_;
  }
  return fixed + static_cast<double>(cost) * unit;
}

}  // namespace triptych::scheduler
