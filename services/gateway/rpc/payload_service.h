#pragma once

// triptych.v1.Payload: a request's input for the worker that was given its task, and the fence.

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/payload.grpc.pb.h"

namespace triptych::services {

// Borrows the core.
class PayloadService final : public v1::Payload::CallbackService {
 public:
  explicit PayloadService(GatewayCore* core) : core_(core) {}

  // Ends with NOT_FOUND when the envelope means another incarnation, INVALID_ARGUMENT when a
  // message is malformed, RESOURCE_EXHAUSTED when the worker reads too slowly or the core is
  // overrun.
  grpc::ServerBidiReactor<v1::PullRequestBatch, v1::PullAnswerBatch>* Pull(
      grpc::CallbackServerContext* context) override;

 private:
  GatewayCore* const core_;
};

}  // namespace triptych::services
