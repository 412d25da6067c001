#pragma once

// Pulls the inputs of tasks from gateways: one call of Payload.Pull a task, answers to the loop.

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "scheduler/plan/gateway_messages.h"
#include "services/worker/media_preparer.h"
#include "services/worker/worker_loop.h"
#include "triptych/v1/payload.grpc.pb.h"

namespace triptych::services {

// Thread-safe.
class InputPuller {
 public:
  // Borrows both. `self` is this worker's incarnation.
  InputPuller(scheduler::Incarnation self, MediaPreparer* preparer);
  // Cancels every call and waits until they are over.
  ~InputPuller();
  // Before the first Pull.
  void set_loop(WorkerLoop* loop) { loop_ = loop; }

  void Pull(const scheduler::PullRequest& request, const scheduler::PeerAddress& gateway);
  // Cancels the call, if there is one; its answer may still come.
  void Drop(scheduler::TaskId task);
  // Forgets the channel to a gateway that is gone.
  void ForgetGateway(scheduler::Incarnation gateway);

 private:
  class Call;
  void OnDone(scheduler::TaskId task, Call* call);
  void Prepare(scheduler::TaskId task, ItemMedia media);

  const scheduler::Incarnation self_;
  MediaPreparer* const preparer_;
  WorkerLoop* loop_ = nullptr;
  base::Mutex mutex_;
  base::CondVar idle_;
  absl::flat_hash_map<scheduler::TaskId, Call*> calls_ ABSL_GUARDED_BY(mutex_);
  int live_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  // Shared with the calls that run on it.
  absl::flat_hash_map<scheduler::Incarnation, std::shared_ptr<v1::Payload::Stub>> stubs_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
