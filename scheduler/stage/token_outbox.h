#pragma once

// The answer tokens that one task has made and its gateway has not acknowledged yet.

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/status/status.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

// The task that makes the tokens, as its gateway knows it.
struct TokenProducer {
  RequestId request;
  TaskId task;
  OutputEpoch epoch;
  uint64_t pass = 0;
};

class TokenOutbox {
 public:
  TokenOutbox() = default;
  // `start_index` is the answer index of the first token that will be pushed.
  TokenOutbox(TokenProducer producer, PeerAddress gateway, int32_t start_index);

  const PeerAddress& gateway() const { return gateway_; }
  // The next token of the answer.
  void Push(SampledToken token);
  // The last token that was pushed ends the answer.
  void End(Finish finish);
  // The request ends with this error, after the tokens that were pushed.
  void Fail(absl::Status error);

  // What was not sent yet, as one batch; nothing when there is none.
  std::optional<TokenBatch> TakeUnsent();
  // Sends again what is not acknowledged.
  void Rewind();

  enum class Outcome {
    kNothing,    // stale, or no news
    kProgress,   // more is acknowledged, or something is to be sent again
    kGone,       // the gateway does not want this answer any more
    kImpossible  // the gateway wants tokens that were acknowledged and dropped
  };
  Outcome OnReply(const TokenReply& reply);

  // Tokens below this index are safe at the gateway.
  int32_t acknowledged() const { return begin_; }
  // The finish (with its token) or the error is safe at the gateway.
  bool concluded() const;

 private:
  int32_t end_index() const { return begin_ + static_cast<int32_t>(tokens_.size()); }

  TokenProducer producer_;
  PeerAddress gateway_;
  std::deque<SampledToken> tokens_;  // [begin_, end_index())
  int32_t begin_ = 0;
  int32_t sent_ = 0;  // index of the first token that was not sent
  Finish finish_ = Finish::kNone;
  absl::Status error_;
  enum class ErrorState : uint8_t { kUnsent, kSent, kAcknowledged } error_state_{};
};

}  // namespace triptych::scheduler
