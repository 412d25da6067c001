#include "scheduler/stage/token_flow.h"

#include <optional>
#include <utility>

#include "scheduler/stage/admission.h"

namespace triptych::scheduler {
namespace {

void DecodeProgressed(StageState& state, DecodeTask& task) {
  if (!task.started && task.outbox->acknowledged() > task.own_index) {
    task.started = true;
    state.Tell(DecodeStarted{task.assign.task});
  }
  if (std::holds_alternative<DecodeConcluding>(task.state) && task.outbox->concluded()) {
    task.state = DecodeDelivered{};
    state.Tell(TaskDelivered{task.assign.task});
  }
}

}  // namespace

void FlushTokens(StageState& state, TokenOutbox& outbox) {
  std::optional<TokenBatch> batch = outbox.TakeUnsent();
  if (batch.has_value()) state.Emit(SendTokens{outbox.gateway(), *std::move(batch)});
}

void TokenReplied(StageState& state, const TokenReply& reply) {
  PrefillTask* prefill = Find(state.prefills, reply.task);
  DecodeTask* decode = Find(state.decodes, reply.task);
  TokenOutbox* outbox = nullptr;
  if (prefill != nullptr && prefill->outbox.has_value()) outbox = &*prefill->outbox;
  if (decode != nullptr && decode->outbox.has_value()) outbox = &*decode->outbox;
  if (outbox == nullptr) return;
  switch (outbox->OnReply(reply)) {
    case TokenOutbox::Outcome::kNothing:
      break;
    case TokenOutbox::Outcome::kGone:
      return Fail(state, reply.task, absl::NotFoundError("the gateway has dropped the answer"));
    case TokenOutbox::Outcome::kImpossible:
      return Fail(state, reply.task, absl::AbortedError("the gateway lost acknowledged tokens"));
    case TokenOutbox::Outcome::kProgress:
      FlushTokens(state, *outbox);
      break;
  }
  if (decode != nullptr) DecodeProgressed(state, *decode);
}

void TokenStreamReset(StageState& state, Incarnation gateway) {
  const auto rewind = [&](auto& tasks) {
    for (auto& [id, task] : tasks) {
      if (!task.outbox.has_value() || task.outbox->gateway().incarnation != gateway) continue;
      task.outbox->Rewind();
      FlushTokens(state, *task.outbox);
    }
  };
  rewind(state.prefills);
  rewind(state.decodes);
}

}  // namespace triptych::scheduler
