#include "engine/modelled/modelled_executor.h"

#include <utility>

namespace triptych::engine {

ModelledExecutor::ModelledExecutor(ModelledConfig config, const base::Clock& clock,
                                   ExecutorEvents events)
    : capacity_(config.capacity),
      clock_(clock),
      events_(std::move(events)),
      executor_(std::move(config), clock, Collecting()),
      regions_(executor_.transfer_regions()),
      thread_([this] { Run(); }) {}

ModelledExecutor::~ModelledExecutor() {
  {
    base::MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

// The executor's events come while the lock is held: they are called after it.
ExecutorEvents ModelledExecutor::Collecting() {
  const auto later = [this](std::function<void()> event)
                         ABSL_NO_THREAD_SAFETY_ANALYSIS { due_.push_back(std::move(event)); };
  return {.on_result =
              [this, later](scheduler::StepResult result) {
                later([this, result = std::move(result)] { events_.on_result(result); });
              },
          .on_import =
              [this, later](scheduler::BufferId buffer) {
                later([this, buffer] { events_.on_import(buffer); });
              },
          .on_export =
              [this, later](scheduler::ExportResult result) {
                later([this, result] { events_.on_export(result); });
              }};
}

void ModelledExecutor::Run() {
  while (true) {
    std::vector<std::function<void()>> due;
    {
      base::MutexLock lock(&mutex_);
      while (!stopped_ && executor_.NextEvent() > clock_.Now()) {
        const base::TimePoint next = executor_.NextEvent();
        if (next == base::kNever) {
          changed_.Wait(&mutex_);
        } else {
          changed_.WaitUntil(&mutex_, next);
        }
      }
      if (stopped_) return;
      executor_.RunUntil(clock_.Now());
      due.swap(due_);
    }
    for (const std::function<void()>& event : due) event();
  }
}

void ModelledExecutor::ProvideInput(scheduler::TaskId task, EncodeInput input) {
  base::MutexLock lock(&mutex_);
  executor_.ProvideInput(task, std::move(input));
}

void ModelledExecutor::DropInput(scheduler::TaskId task) {
  base::MutexLock lock(&mutex_);
  executor_.DropInput(task);
}

void ModelledExecutor::Submit(scheduler::StepPlan plan) {
  base::MutexLock lock(&mutex_);
  executor_.Submit(std::move(plan));
  changed_.NotifyAll();
}

void ModelledExecutor::Import(scheduler::ImportSpec spec) {
  base::MutexLock lock(&mutex_);
  executor_.Import(std::move(spec));
  changed_.NotifyAll();
}

void ModelledExecutor::Export(scheduler::ExportSpec spec) {
  base::MutexLock lock(&mutex_);
  executor_.Export(std::move(spec));
  changed_.NotifyAll();
}

void ModelledExecutor::ChecksumLanded(scheduler::PieceBuffer buffer,
                                      std::function<void(uint64_t)> on_checksum) {
  uint64_t checksum = 0;
  {
    base::MutexLock lock(&mutex_);
    executor_.ChecksumLanded(buffer, [&](uint64_t sum) { checksum = sum; });
  }
  on_checksum(checksum);
}

}  // namespace triptych::engine
