#pragma once

// What a worker's loop needs of the outside: the wire in production, a script in tests. Calls come
// from the loop's thread and must not block; answers come back through the loop's Post functions.

#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::services {

// What a worker measured of its part of a request, for the client's timeline; advisory.
struct StageTimes {
  base::Duration media_decode{0};
  base::Duration encode{0};
  base::Duration embedding_transfer{0};
  int64_t embedding_bytes = 0;
  base::Duration prefill{0};
  base::Duration kv_transfer{0};
  int64_t kv_bytes = 0;
};

class WorkerLinks {
 public:
  virtual ~WorkerLinks() = default;

  // Lost when there is no stream: the next hello's inventory reconciles.
  virtual void SendToScheduler(const scheduler::WorkerToScheduler& message) = 0;

  // Answered by WorkerLoop::PostPulled; for an encode task also by PostMedia. DropInput: no answer
  // is wanted any more.
  virtual void Pull(const scheduler::PullRequest& request,
                    const scheduler::PeerAddress& gateway) = 0;
  virtual void DropInput(scheduler::TaskId task) = 0;

  virtual void SendTransfer(const scheduler::PeerAddress& peer,
                            const scheduler::TransferMessage& message) = 0;

  // `times` only where this batch ends a stage. A batch with no tokens, no finish and no error
  // carries times alone.
  virtual void SendTokens(const scheduler::PeerAddress& gateway, const scheduler::TokenBatch& batch,
                          const StageTimes* times) = 0;

  // The end of a round of the loop: whatever was sent since the last may leave together.
  virtual void Flush() {}

  // Closes the handshake stream to a worker that is given up.
  virtual void ForgetPeer(scheduler::Incarnation peer) = 0;
};

}  // namespace triptych::services
