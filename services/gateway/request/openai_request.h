#pragma once

// The bodies of OpenAI's chat completions and text completions. What each member becomes stands in
// request_fields.h.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/gateway/request/chat_request.h"

namespace triptych::services {

enum class Endpoint { kChat, kCompletions };

struct OpenAiRequest {
  // One a prompt: a chat has one, completions may have several, alike but for the prompt.
  std::vector<ChatRequest> prompts;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  std::vector<std::string> unknown;  // members that nobody knows, at most kMaxUnknown
};
inline constexpr size_t kMaxUnknown = 16;
// Answers to one body: prompts times n.
inline constexpr int64_t kMaxChoices = 8;

// INVALID_ARGUMENT with a code of errors.h and the member that is wrong: not JSON, a member of the
// wrong type, what is not offered, a source of pictures that is not a data: URL. Other ranges are
// Intake's.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(absl::string_view body, Endpoint endpoint);

}  // namespace triptych::services
