#include "engine/modelled/modelled_device.h"

#include <utility>

namespace triptych::engine {

ModelledDevice::ModelledDevice(ModelledConfig config, const base::Clock& clock, OnResult on_result)
    : capacity_(config.capacity),
      clock_(clock),
      on_result_(std::move(on_result)),
      executor_(std::move(config), clock,
                [this](scheduler::StepResult result)
                    ABSL_NO_THREAD_SAFETY_ANALYSIS { results_.push_back(std::move(result)); }),
      regions_(executor_.transfer_regions()),
      thread_([this] { Run(); }) {}

ModelledDevice::~ModelledDevice() {
  {
    base::MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void ModelledDevice::Run() {
  while (true) {
    std::vector<scheduler::StepResult> results;
    {
      base::MutexLock lock(&mutex_);
      while (!stopped_ && executor_.NextResult() > clock_.Now()) {
        const base::TimePoint next = executor_.NextResult();
        if (next == base::kNever) {
          changed_.Wait(&mutex_);
        } else {
          changed_.WaitUntil(&mutex_, next);
        }
      }
      if (stopped_) return;
      executor_.RunUntil(clock_.Now());
      results.swap(results_);
    }
    for (scheduler::StepResult& result : results) on_result_(std::move(result));
  }
}

void ModelledDevice::ProvidePatches(scheduler::TaskId task, EncodeInput input) {
  base::MutexLock lock(&mutex_);
  executor_.ProvidePatches(task, std::move(input));
}

void ModelledDevice::DropPatches(scheduler::TaskId task) {
  base::MutexLock lock(&mutex_);
  executor_.DropPatches(task);
}

void ModelledDevice::Submit(scheduler::StepPlan plan) {
  base::MutexLock lock(&mutex_);
  executor_.Submit(std::move(plan));
  changed_.NotifyAll();
}

}  // namespace triptych::engine
