#pragma once

// The choice that the three policies share: of the workers that can take the work now, the one that
// would be done with it first, by predicted seconds.

#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

enum class Fit : uint8_t {
  kNever,  // larger than the worker
  kLater,  // no room now
  kNow,
  kAtHome,  // what it needs lies there already: nobody is better
};

// `fit_of(worker)` says how the work fits a worker that has the stage's role; `cost` is in the
// stage's unit. A worker that is closed after a refusal is asked no more than whether it is large
// enough. Ties go to the lowest incarnation.
template <typename FitOf>
Choice ChooseLeastWork(const ClusterView& view, Stage stage, int64_t cost, base::TimePoint now,
                       FitOf fit_of) {
  Choice choice;
  if (!view.of(stage).empty()) choice.otherwise = Choice::Otherwise::kNever;
  double best = 0;
  for (const WorkerView* worker : view.of(stage)) {
    const Fit fit = fit_of(*worker);
    if (fit == Fit::kNever) continue;
    choice.otherwise = Choice::Otherwise::kWait;
    if (fit == Fit::kLater || !worker->IsOpen(stage, now)) continue;
    if (fit == Fit::kAtHome) return {worker};
    const double seconds = PredictedSeconds(view, *worker, stage, cost);
    if (choice.worker != nullptr && seconds >= best) continue;
    choice.worker = worker;
    best = seconds;
  }
  return choice;
}

}  // namespace triptych::scheduler
