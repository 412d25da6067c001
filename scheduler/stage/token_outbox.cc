#include "scheduler/stage/token_outbox.h"

#include <algorithm>
#include <utility>

namespace triptych::scheduler {

TokenOutbox::TokenOutbox(TokenProducer producer, PeerAddress gateway, int32_t start_index)
    : producer_(producer), gateway_(std::move(gateway)), begin_(start_index), sent_(start_index) {}

void TokenOutbox::Push(SampledToken token) { tokens_.push_back(std::move(token)); }

void TokenOutbox::End(Finish finish) { finish_ = finish; }

void TokenOutbox::Fail(absl::Status error) { error_ = std::move(error); }

std::optional<TokenBatch> TokenOutbox::TakeUnsent() {
  const bool tokens_unsent = sent_ < end_index();
  const bool error_unsent = !error_.ok() && error_state_ == ErrorState::kUnsent;
  if (!tokens_unsent && !error_unsent) return std::nullopt;
  TokenBatch batch{.request = producer_.request,
                   .task = producer_.task,
                   .epoch = producer_.epoch,
                   .start_index = sent_,
                   .pass = producer_.pass};
  if (tokens_unsent) {
    batch.tokens.assign(tokens_.begin() + (sent_ - begin_), tokens_.end());
    batch.finish = finish_;
    sent_ = end_index();
    return batch;
  }
  batch.error = error_;
  error_state_ = ErrorState::kSent;
  return batch;
}

void TokenOutbox::Rewind() {
  sent_ = begin_;
  if (error_state_ == ErrorState::kSent) error_state_ = ErrorState::kUnsent;
}

TokenOutbox::Outcome TokenOutbox::OnReply(const TokenReply& reply) {
  if (reply.request != producer_.request || reply.task != producer_.task ||
      reply.epoch != producer_.epoch) {
    return Outcome::kNothing;
  }
  if (reply.kind == TokenReply::Kind::kGone) return Outcome::kGone;
  if (reply.kind == TokenReply::Kind::kResumeFrom) {
    if (reply.next_index > end_index()) return Outcome::kNothing;
    if (reply.next_index < begin_) return Outcome::kImpossible;
    sent_ = reply.next_index;
    if (error_state_ == ErrorState::kSent) error_state_ = ErrorState::kUnsent;
    return Outcome::kProgress;
  }
  if (reply.ended && !error_.ok()) error_state_ = ErrorState::kAcknowledged;
  // The gateway counts the whole answer: another task of this epoch may be ahead of this one.
  const int32_t safe = std::min(reply.next_index, end_index());
  if (safe <= begin_) return Outcome::kNothing;
  tokens_.erase(tokens_.begin(), tokens_.begin() + (safe - begin_));
  begin_ = safe;
  sent_ = std::max(sent_, begin_);
  return Outcome::kProgress;
}

bool TokenOutbox::concluded() const {
  if (!error_.ok()) return error_state_ == ErrorState::kAcknowledged;
  return finish_ != Finish::kNone && tokens_.empty();
}

}  // namespace triptych::scheduler
