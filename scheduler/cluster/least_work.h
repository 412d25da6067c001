#pragma once

// The choice that the three policies share: of the workers that can take the work now, the one that
// would be done with it first, by predicted seconds.

#include <algorithm>

#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

enum class Fit : uint8_t {
  kNever,  // larger than the worker
  kLater,  // no room now
  kNow,
};

// So many workers without room are met, those that would be done first; and of those with room so
// many are compared, for speeds differ. What finds none waits for a round that is thorough.
inline constexpr int kMostTries = 16;
inline constexpr int kMostCompared = 4;

// `fit_of(worker)` says how the work fits a worker that has the stage's role; `cost` is in the
// stage's unit; `also` (or null) is tried whatever its turn. Ties go to the lowest incarnation.
template <typename FitOf>
Choice ChooseLeastWork(const ClusterView& view, Stage stage, int64_t cost, FitOf fit_of,
                       const WorkerView* also = nullptr) {
  Choice choice;
  double best = 0;
  const auto look = [&](const WorkerView& worker) {
    const Fit fit = fit_of(worker);
    if (fit != Fit::kNow) return fit;
    const double seconds = PredictedSeconds(view, worker, stage, cost);
    const bool tie = choice.worker != nullptr && seconds == best;
    if (choice.worker == nullptr || seconds < best ||
        (tie && worker.profile.incarnation < choice.worker->profile.incarnation)) {
      choice.worker = &worker;
      best = seconds;
    }
    return fit;
  };
  if (also != nullptr && also->MayTake(stage)) look(*also);
  int tries = 0, compared = 0;
  for (const StageIndex::Place& place : view.of(stage).open()) {
    if ((tries == kMostTries && !view.thorough) || compared == kMostCompared) break;
    const Fit fit = look(*place.worker);
    if (fit == Fit::kLater) ++tries;  // a small one is no try of something large
    if (fit == Fit::kNow) ++compared;
  }
  if (choice.worker != nullptr) return choice;
  const auto& kinds = view.kinds[static_cast<int>(stage)];
  const bool never = !kinds.empty() && std::all_of(kinds.begin(), kinds.end(), [&](auto* kind) {
    return fit_of(*kind) == Fit::kNever;
  });
  if (never) choice.otherwise = Choice::Otherwise::kNever;
  return choice;
}

}  // namespace triptych::scheduler
