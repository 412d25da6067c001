#pragma once

// The JSON of OpenAI's chat completions and text completions, written by hand: the part of the
// gateway that runs for every token. All texts are valid UTF-8.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/tokenizer/tokenizer.h"
#include "services/gateway/core/response_sink.h"
#include "services/gateway/request/openai_request.h"

namespace triptych::services {

// Appends `text` as a JSON string, with its quotes.
void AppendJsonString(absl::string_view text, std::string* out);

// {"error":{"type","code","message","param","request_id"}}
std::string ErrorJson(const absl::Status& status, absl::string_view request_id);

// What of the answers' form is known before their first token.
struct AnswerForm {
  std::string id;          // of the completion
  std::string request_id;  // of the HTTP request, for errors
  std::string model;
  Endpoint endpoint = Endpoint::kChat;
  int64_t created = 0;  // seconds since 1970
  bool logprobs = false;
  bool include_usage = false;
  bool continuous_usage = false;  // with every event
};

// The answers to one body as server-sent events. One thread; borrows the tokenizer.
class EventWriter {
 public:
  EventWriter(const models::Tokenizer& tokenizer, const AnswerForm& form);

  // Appends the events that open `choices` messages, before any token is there.
  void AppendOpening(int choices, std::string* out);
  // Appends the event of a part of answer `choice`; `so_far` is used with continuous usage.
  void AppendPart(int choice, const AnswerPart& part, const Usage& so_far, std::string* out);
  // Appends the event that ends answer `choice`, which is good.
  void AppendFinish(int choice, scheduler::Finish finish, const Usage& so_far, std::string* out);
  // Appends what ends the stream: the usage of all answers if it was asked for, and [DONE].
  void AppendDone(const Usage& all, std::string* out);
  // Appends the error that ends the stream; no [DONE] follows it.
  void AppendError(const absl::Status& status, std::string* out);

 private:
  // Closes an event with its usage, or null, where usage is wanted.
  void CloseEvent(const Usage& so_far, std::string* out);

  const models::Tokenizer& tokenizer_;
  const AnswerForm form_;
  std::string prefix_;                 // up to the choices
  std::vector<int64_t> text_offsets_;  // by choice; of completions with log probabilities
};

// One answer of a whole document.
struct WholeAnswer {
  AnswerPart part;
  scheduler::Finish finish = scheduler::Finish::kNone;
};

// The whole answer as one document.
std::string CompletionJson(const models::Tokenizer& tokenizer, const AnswerForm& form,
                           absl::Span<const WholeAnswer> answers, const Usage& all);

}  // namespace triptych::services
