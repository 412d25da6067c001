#pragma once

// The JSON of OpenAI's chat completions, written by hand: the part of the gateway that runs for
// every token. All texts are valid UTF-8.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "models/tokenizer/tokenizer.h"
#include "services/gateway/core/response_sink.h"

namespace triptych::services {

// Appends `text` as a JSON string, with its quotes.
void AppendJsonString(absl::string_view text, std::string* out);

// {"error":{"type","code","message","request_id"}}
std::string ErrorJson(const absl::Status& status, absl::string_view request_id);

// What of an answer's form is known before its first token.
struct AnswerForm {
  std::string request_id;
  std::string model;
  int64_t created = 0;  // seconds since 1970
  bool logprobs = false;
  bool include_usage = false;
};

// One answer as server-sent events. One thread; borrows the tokenizer.
class EventWriter {
 public:
  EventWriter(const models::Tokenizer& tokenizer, const AnswerForm& form);

  // Appends the events of a part; the first also opens the message.
  void AppendPart(const AnswerPart& part, std::string* out);
  // Appends the last events: the finish reason, the usage if it was asked for, and [DONE]; or, when
  // the status is not OK, the error and no [DONE].
  void AppendEnd(const AnswerEnd& end, std::string* out);

 private:
  const models::Tokenizer& tokenizer_;
  const AnswerForm form_;
  std::string prefix_;  // up to the choices
  bool opened_ = false;
};

// The whole answer as one document. `part` holds all of it.
std::string CompletionJson(const models::Tokenizer& tokenizer, const AnswerForm& form,
                           const AnswerPart& part, const AnswerEnd& end);

}  // namespace triptych::services
