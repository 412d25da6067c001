#pragma once

// The one place where a client's request is checked, measured and laid out. Decodes no pixel, opens
// nothing, trusts no number.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "media/limits.h"
#include "services/gateway/core/client.h"
#include "services/gateway/request/chat_request.h"
#include "services/gateway/request/parsed_request.h"
#include "services/gateway/request/served_model.h"

namespace triptych::services {

struct IntakeLimits {
  int32_t max_output_tokens = 0;  // 0: what the context holds
  base::Duration max_timeout = std::chrono::minutes(10);
  // A prompt's text; the tokeniser is linear, but not free.
  int64_t max_text_bytes = int64_t{4} << 20;
  int max_messages = 1024;
  media::Limits image;
};

// Immutable; borrows the model. Any thread; takes about a millisecond for 10 KB of text, and a pass
// over the bytes of each picture.
class Intake {
 public:
  Intake(const ServedModel& model, const IntakeLimits& limits) : model_(model), limits_(limits) {}

  // What the request says of its client gives way to `client`; null: it is believed.
  // Takes the media bytes out of `request`; `reservation` covers them from now on and is shrunk to
  // their size. NOT_FOUND for another model; INVALID_ARGUMENT, with a code of errors.h, for the
  // rest. What is beyond the context or --max-output-tokens of the answer's length is cut.
  absl::StatusOr<std::unique_ptr<ParsedRequest>> Parse(ChatRequest request,
                                                       PayloadBudget::Reservation reservation,
                                                       const Client* client = nullptr) const;

  const ServedModel& model() const { return model_; }
  // Of one answer, whatever its prompt leaves.
  int32_t max_output_tokens() const {
    return limits_.max_output_tokens > 0 ? limits_.max_output_tokens : model_.context_tokens();
  }

 private:
  absl::Status CheckNumbers(const ChatRequest& request) const;
  absl::Status CheckEnd(const ChatRequest& request) const;
  absl::Status CheckMessages(const ChatRequest& request) const;
  absl::Status CheckTextBytes(int64_t bytes) const;
  absl::Status TooLong(int64_t prompt_tokens) const;
  absl::Status TooMuchText() const;
  absl::Status Explain(const absl::Status& refusal) const;
  absl::Status LayOutChat(ChatRequest* request, ParsedRequest* parsed, Payload* payload) const;
  absl::Status LayOutPrompt(const RawPrompt& prompt, ParsedRequest* parsed) const;
  absl::Status SetEnd(ChatRequest* request, ParsedRequest* parsed) const;
  base::Duration TimeoutOf(const ChatRequest& request) const;
  absl::StatusOr<scheduler::Item> Measure(const std::string& tenant, ChatMedia* media,
                                          ParsedRequest* parsed, Payload* payload) const;

  const ServedModel& model_;
  const IntakeLimits limits_;
};

}  // namespace triptych::services
