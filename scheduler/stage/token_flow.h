#pragma once

// Token batches to gateways and what their replies change.

#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

// Emits what the outbox has not sent, as one batch.
void FlushTokens(StageState& state, TokenOutbox& outbox);
void TokenReplied(StageState& state, const TokenReply& reply);
void TokenStreamReset(StageState& state, Incarnation gateway);

}  // namespace triptych::scheduler
