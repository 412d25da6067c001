#include "engine/gpu/completion_queue.h"

#include <optional>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace triptych::engine {

absl::StatusOr<std::unique_ptr<CompletionQueue>> CompletionQueue::Create(int device, int capacity,
                                                                         OnFailure on_failure) {
  std::unique_ptr<CompletionQueue> queue(
      new CompletionQueue(device, capacity, std::move(on_failure)));
  for (int i = 0; i < capacity; ++i) {
    ASSIGN_OR_RETURN(base::CudaEvent event, base::CudaEvent::Create(base::CudaTiming::kOff));
    CHECK_TRUE(queue->spare_.TryPush(std::move(event)));
  }
  queue->thread_ = std::thread([raw = queue.get()] { raw->Run(); });
  return queue;
}

CompletionQueue::~CompletionQueue() {
  waiting_.Close();
  if (thread_.joinable()) thread_.join();
}

void CompletionQueue::Push(void* stream, OnDone done) {
  CHECK_TRUE(spare_.size() > 0);
  Entry entry{.event = *spare_.Pop(), .recorded = {}, .done = std::move(done)};
  entry.recorded = entry.event.Record(stream);
  CHECK_TRUE(waiting_.TryPush(std::move(entry)));
}

void CompletionQueue::Run() {
  absl::Status failed = base::UseCudaDevice(device_);
  while (std::optional<Entry> entry = waiting_.Pop()) {
    if (failed.ok()) failed = entry->recorded;
    if (failed.ok()) failed = entry->event.Synchronize();
    if (!failed.ok()) {
      on_failure_(failed);
      return;
    }
    entry->done();
    CHECK_TRUE(spare_.TryPush(std::move(entry->event)));
  }
}

}  // namespace triptych::engine
