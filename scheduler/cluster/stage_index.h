#pragma once

// The workers of one stage that could take work now, the one that would be done first in front:
// kept where a ledger changes, so that a choice looks at the few that matter whatever their number.
// One thread.

#include <cstdint>
#include <map>
#include <set>

#include "base/clock.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

struct WorkerView;

class StageIndex {
 public:
  explicit StageIndex(Stage stage) : stage_(stage) {}
  StageIndex(const StageIndex&) = delete;
  StageIndex& operator=(const StageIndex&) = delete;

  // Borrowed until Remove.
  void Add(WorkerView* worker);
  void Remove(WorkerView* worker);
  // Its ledger, speed or openness has changed.
  void Update(WorkerView* worker);

  struct Place {
    double seconds = 0;  // until it would be done with what it has and one unit more
    Incarnation incarnation;
    const WorkerView* worker = nullptr;
    bool operator<(const Place& other) const {
      if (seconds != other.seconds) return seconds < other.seconds;
      return incarnation < other.incarnation;
    }
  };
  const std::set<Place>& open() const { return open_; }
  // Everybody of the stage, open or not.
  const std::map<Incarnation, const WorkerView*>& members() const { return members_; }
  // That the worker takes for `cost`: see PredictedSeconds.
  double Seconds(const WorkerView& worker, int64_t cost) const;

 private:
  struct Known {
    double fixed = 0, unit = 0;  // as counted in the sums
    bool open = false;
    double seconds = 0;  // its place
  };
  const Stage stage_;
  std::map<Incarnation, const WorkerView*> members_;
  std::map<Incarnation, Known> known_;
  std::set<Place> open_;
  double fixed_sum_ = 0, unit_sum_ = 0;
  int known_speeds_ = 0;
};

}  // namespace triptych::scheduler
