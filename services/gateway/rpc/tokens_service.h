#pragma once

// triptych.v1.Tokens: workers' token streams into the core, and the core's replies back.

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/tokens.grpc.pb.h"

namespace triptych::services {

// Borrows the core.
class TokensService final : public v1::Tokens::CallbackService {
 public:
  explicit TokensService(GatewayCore* core) : core_(core) {}

  grpc::ServerBidiReactor<v1::TokenBatches, v1::TokenReplies>* Stream(
      grpc::CallbackServerContext* context) override;

 private:
  GatewayCore* const core_;
};

}  // namespace triptych::services
