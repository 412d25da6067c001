#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {
namespace {

double MeanSpeed(const ClusterView& view, Stage stage) {
  double sum = 0;
  int known = 0;
  for (const WorkerView* worker : view.of(stage)) {
    const double speed = worker->cost_per_second[static_cast<int>(stage)];
    if (speed <= 0) continue;
    sum += speed;
    ++known;
  }
  return known == 0 ? 1.0 : sum / known;
}

}  // namespace

double PredictedSeconds(const ClusterView& view, const WorkerView& worker, Stage stage,
                        int64_t cost) {
  double speed = worker.cost_per_second[static_cast<int>(stage)];
  if (speed <= 0) speed = MeanSpeed(view, stage);
  return static_cast<double>(worker.ledger.cost(stage) + cost) / speed;
}

}  // namespace triptych::scheduler
