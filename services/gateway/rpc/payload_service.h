#pragma once

// triptych.v1.Payload: a request's input for the worker that was given its task, and the fence.

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/payload.grpc.pb.h"

namespace triptych::services {

// Borrows the core.
class PayloadService final : public v1::Payload::CallbackService {
 public:
  explicit PayloadService(GatewayCore* core) : core_(core) {}

  grpc::ServerWriteReactor<v1::PullResponse>* Pull(grpc::CallbackServerContext* context,
                                                   const v1::PullRequest* request) override;

 private:
  GatewayCore* const core_;
};

}  // namespace triptych::services
