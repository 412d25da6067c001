#include "scheduler/cluster/cluster_view.h"

#include <algorithm>

namespace triptych::scheduler {

bool WorkerView::MayTake(Stage stage) const {
  if (!IsOpen(stage)) return false;
  if (stage == Stage::kEncode) return ledger.tasks(stage) < profile.max_encodes;
  const Amount free = ledger.free();
  return free.sequences > 0 && free.kv_blocks > 0;
}

void WorkerView::Changed() {
  if (view == nullptr) return;
  for (StageIndex& stage : view->stages_) stage.Update(this);
}

void ClusterView::Add(WorkerView* worker) {
  worker->view = this;
  for (int i = 0; i < kNumStages; ++i) {
    if (worker->profile.roles.has(static_cast<Stage>(i))) stages_[i].Add(worker);
  }
}

void ClusterView::Remove(WorkerView* worker) {
  for (StageIndex& stage : stages_) stage.Remove(worker);
  worker->view = nullptr;
}

const WorkerView* ClusterView::Find(Incarnation worker, Stage stage) const {
  const auto& members = of(stage).members();
  auto it = members.find(worker);
  return it == members.end() ? nullptr : it->second;
}

bool ClusterView::Reaches(Incarnation peer, Stage stage, base::TimePoint now) const {
  const auto& members = of(stage).members();
  if (links.empty() || members.empty()) return true;
  return std::any_of(members.begin(), members.end(),
                     [&](const auto& member) { return links.IsOpen(peer, member.first, now); });
}

double PredictedSeconds(const ClusterView& view, const WorkerView& worker, Stage stage,
                        int64_t cost) {
  return view.of(stage).Seconds(worker, worker.ledger.load(stage) + cost);
}

}  // namespace triptych::scheduler
