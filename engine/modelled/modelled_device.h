#pragma once

// A modelled executor in real time: a thread of its own gives each result when its step's time is
// over. Rules of executor.h.

#include <memory>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/executor.h"
#include "engine/modelled/modelled_executor.h"

namespace triptych::engine {

class ModelledDevice final : public Executor {
 public:
  // Borrows `clock`, which must be real. `on_result` is called by the thread, without a lock held.
  ModelledDevice(ModelledConfig config, const base::Clock& clock, OnResult on_result);
  // Ends the thread; steps in flight give no result.
  ~ModelledDevice() override;

  const Capacity& capacity() const override { return capacity_; }
  void ProvidePatches(scheduler::TaskId task, EncodeInput input) override;
  void DropPatches(scheduler::TaskId task) override;
  const TransferRegions& transfer_regions() const override { return regions_; }
  void Submit(scheduler::StepPlan plan) override;

 private:
  void Run();

  const Capacity capacity_;
  const base::Clock& clock_;
  const OnResult on_result_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<scheduler::StepResult> results_ ABSL_GUARDED_BY(mutex_);
  ModelledExecutor executor_ ABSL_GUARDED_BY(mutex_);
  const TransferRegions regions_;
  std::thread thread_;
};

}  // namespace triptych::engine
