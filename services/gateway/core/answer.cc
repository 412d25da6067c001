#include "services/gateway/core/answer.h"

#include <utility>

#include "base/check.h"

namespace triptych::services {

using models::Detokenizer;
using scheduler::Finish;

Answer::Answer(const models::Tokenizer& tokenizer, const AnswerRules& rules)
    : include_stop_(rules.include_stop),
      min_tokens_(rules.min_tokens),
      detokenizer_(tokenizer, rules.skip_special_tokens ? Detokenizer::Controls::kSilent
                                                        : Detokenizer::Controls::kWritten),
      stops_(rules.stop) {}

bool Answer::PushText(const std::string& text, AnswerPart* part) {
  // Text that comes too early for a stop string cannot be the beginning of one either.
  if (output_tokens_ <= min_tokens_) {
    part->text += text;
    return false;
  }
  models::StopMatcher::Output out = stops_.Push(text);
  part->text += out.text;
  if (out.stopped && include_stop_) part->text += out.stop;
  return out.stopped;
}

AnswerPart Answer::Push(std::vector<scheduler::SampledToken> tokens, Finish finish) {
  CHECK_TRUE(finish_ == Finish::kNone);
  AnswerPart part;
  for (size_t i = 0; i < tokens.size(); ++i) {
    ++output_tokens_;
    const bool stop_token = finish == Finish::kStop && i + 1 == tokens.size();
    if (stop_token && !include_stop_) break;
    if (PushText(detokenizer_.Push(tokens[i].token), &part)) {
      tokens.resize(i + 1);
      finish_ = Finish::kStop;
      break;
    }
  }
  part.tokens = std::move(tokens);
  if (finish_ != Finish::kNone || finish == Finish::kNone) return part;
  finish_ = finish;
  models::StopMatcher::Output rest = stops_.Push(detokenizer_.Finish());
  part.text += rest.text;
  if (!rest.stopped) part.text += stops_.Finish();
  return part;
}

}  // namespace triptych::services
