#pragma once

// The client's side of the OpenAI chat API: a request's body, and what the events of its answer
// carry. Pure.

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::services {

// A streamed chat completion of `model`, with usage asked for. Pictures become data: URLs; videos
// are not for this.
std::string OpenAiBody(const v1::GenerateRequest& request, const std::string& model);

// The canonical code that an HTTP status stands for.
absl::StatusCode CodeOfHttpStatus(int status);

// The sentence of an error's body, or its beginning where it is in another form.
std::string ErrorSentence(absl::string_view json);

// What has come of an answer's event stream.
struct AnswerEvents {
  int parts = 0;          // events that carried text
  int output_tokens = 0;  // as the usage says; 0 until it has come
  bool failed = false;    // an error came in the stream
  std::string error;      // its sentence
  bool done = false;      // [DONE] came
};

// Splits a body into events, whatever pieces it comes in.
class EventStreamReader {
 public:
  // Adds what `bytes` complete to `events()`.
  void Feed(absl::string_view bytes);
  const AnswerEvents& events() const { return events_; }

 private:
  void Take(absl::string_view line);

  std::string rest_;  // an unfinished line
  AnswerEvents events_;
};

}  // namespace triptych::services
