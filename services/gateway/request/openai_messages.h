#pragma once

// The `messages` of a chat as OpenAI's clients write them: texts, lists of parts, what an SDK's own
// answers look like when they are sent back.

#include <vector>

#include "absl/status/statusor.h"
#include "services/gateway/request/chat_request.h"
#include "services/gateway/request/json.h"

namespace triptych::services {

// INVALID_ARGUMENT with a code of errors.h and the member that is wrong: a type, a source of
// pictures that is not a data: URL, what is not offered (tools, audio). Takes the texts out of
// `messages`.
absl::StatusOr<std::vector<ChatMessage>> ReadMessages(JsonArray* messages);

}  // namespace triptych::services
