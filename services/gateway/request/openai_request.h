#pragma once

// The body of POST /v1/chat/completions. Unknown members are ignored, as clients expect; members
// that would change the answer in a way that is not offered are refused.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/gateway/request/chat_request.h"

namespace triptych::services {

struct OpenAiRequest {
  ChatRequest chat;
  bool stream = false;
  bool include_usage = false;
};

// INVALID_ARGUMENT with a code of errors.h: not JSON, a member of the wrong type, a source of
// pictures that is not a data: URL. Ranges are Intake's.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(absl::string_view body);

}  // namespace triptych::services
