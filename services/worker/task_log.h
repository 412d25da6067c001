#pragma once

// Tells a task's story in the log, each line with the request, epoch and stage that the task is
// for: failures as warnings, everything else for --log-level=debug.

#include "absl/container/flat_hash_map.h"
#include "base/log.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::services {

// Loop thread only.
class TaskLog {
 public:
  // Borrows `log`.
  explicit TaskLog(base::Logger& log) : log_(log) {}

  // Before the stage scheduler handles it: an assignment begins a task's record.
  void OnMessage(const scheduler::SchedulerToWorker& message);
  // What the worker answers; a failure ends the record, as a release does.
  void OnTold(const scheduler::WorkerToScheduler& message);

 private:
  // Of a task that the scheduler never releases nothing else is left either: an inventory a second
  // tells it what is held here.
  static constexpr size_t kMaxTasks = 1 << 16;
  struct About {
    scheduler::RequestId request;
    scheduler::OutputEpoch epoch;
    scheduler::Stage stage = scheduler::Stage::kEncode;
  };

  template <typename Assignment>
  void Begin(const Assignment& assign, scheduler::OutputEpoch epoch, scheduler::Stage stage);
  void Line(base::LogLevel level, absl::string_view message, scheduler::TaskId task,
            absl::string_view status = "") const;

  base::Logger& log_;
  absl::flat_hash_map<scheduler::TaskId, About> tasks_;
};

}  // namespace triptych::services
