#pragma once

// triptych.v1.Payload: a request's input for the worker that was given its task, and the fence.

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/payload.grpc.pb.h"

namespace triptych::services {

// Borrows the core.
class PayloadService final : public v1::Payload::CallbackService {
 public:
  // `key` is that of the passes that workers must show.
  PayloadService(GatewayCore* core, scheduler::PassKey key) : core_(core), key_(key) {}

  // Ends with NOT_FOUND when the envelope means another incarnation, PERMISSION_DENIED when a task
  // was not given to this worker so, INVALID_ARGUMENT when a
  // message is malformed, RESOURCE_EXHAUSTED when the worker reads too slowly or the core is
  // overrun.
  grpc::ServerBidiReactor<v1::PullRequestBatch, v1::PullAnswerBatch>* Pull(
      grpc::CallbackServerContext* context) override;

 private:
  GatewayCore* const core_;
  const scheduler::PassKey key_;
};

}  // namespace triptych::services
