#pragma once

// triptych.v1.Tokens: workers' token streams into the core, and the core's replies back.

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/tokens.grpc.pb.h"

namespace triptych::services {

// Borrows the core.
class TokensService final : public v1::Tokens::CallbackService {
 public:
  // `key` is that of the passes that workers must show.
  TokensService(GatewayCore* core, scheduler::PassKey key) : core_(core), key_(key) {}

  grpc::ServerBidiReactor<v1::TokenBatches, v1::TokenReplies>* Stream(
      grpc::CallbackServerContext* context) override;

 private:
  GatewayCore* const core_;
  const scheduler::PassKey key_;
};

}  // namespace triptych::services
