#pragma once

// A modelled executor in real time: a thread of its own tells of each piece of work when its time
// is over. Rules of executor.h.

#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/executor.h"
#include "engine/modelled/simulated_executor.h"

namespace triptych::engine {

class ModelledExecutor final : public Executor {
 public:
  // Borrows `clock`, which must be real. Events are called by the thread, without a lock held.
  ModelledExecutor(ModelledConfig config, const base::Clock& clock, ExecutorEvents events);
  // Ends the thread; of what is in flight nothing is told.
  ~ModelledExecutor() override;

  const Capacity& capacity() const override { return capacity_; }
  const TransferRegions& transfer_regions() const override { return regions_; }
  void ProvideInput(scheduler::TaskId task, EncodeInput input) override;
  void DropInput(scheduler::TaskId task) override;
  void Submit(scheduler::StepPlan plan) override;
  void Import(scheduler::ImportSpec spec) override;
  void Export(scheduler::ExportSpec spec) override;
  void ChecksumLanded(scheduler::PieceBuffer buffer,
                      std::function<void(uint64_t)> on_checksum) override;

 private:
  void Run();
  ExecutorEvents Collecting();

  const Capacity capacity_;
  const base::Clock& clock_;
  const ExecutorEvents events_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> due_ ABSL_GUARDED_BY(mutex_);  // events to be called
  SimulatedExecutor executor_ ABSL_GUARDED_BY(mutex_);
  const TransferRegions regions_;
  std::thread thread_;
};

}  // namespace triptych::engine
