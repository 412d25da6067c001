#include "services/gateway/core/answer.h"

#include <utility>

#include "base/check.h"

namespace triptych::services {

using scheduler::Finish;

AnswerPart Answer::Push(std::vector<scheduler::SampledToken> tokens, Finish finish) {
  CHECK_TRUE(finish_ == Finish::kNone);
  AnswerPart part;
  for (size_t i = 0; i < tokens.size(); ++i) {
    ++output_tokens_;
    models::StopMatcher::Output out = stops_.Push(detokenizer_.Push(tokens[i].token));
    part.text += out.text;
    if (out.stopped) {
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
