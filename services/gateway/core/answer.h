#pragma once

// Tokens of one answer to text: whole characters, cut at the first stop string.

#include <string>
#include <vector>

#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/stop_matcher.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/worker_messages.h"
#include "services/gateway/core/response_sink.h"
#include "services/gateway/request/parsed_request.h"

namespace triptych::services {

// One thread; borrows the tokenizer.
class Answer {
 public:
  Answer(const models::Tokenizer& tokenizer, const AnswerRules& rules);

  // The next tokens in order; `finish` is that of the last one, whose text is left out if it is a
  // stop token. After a stop string, or after a finish, nothing may be pushed.
  AnswerPart Push(std::vector<scheduler::SampledToken> tokens, scheduler::Finish finish);

  // kNone while more may come. A stop string gives kStop.
  scheduler::Finish finish() const { return finish_; }
  // With the stop token, or up to the token that completed the stop string.
  int32_t output_tokens() const { return output_tokens_; }

 private:
  // Text of the next token, and whether it ends the answer.
  bool PushText(const std::string& text, AnswerPart* part);

  const bool include_stop_;
  const int32_t min_tokens_;
  models::Detokenizer detokenizer_;
  models::StopMatcher stops_;
  scheduler::Finish finish_ = scheduler::Finish::kNone;
  int32_t output_tokens_ = 0;
};

}  // namespace triptych::services
