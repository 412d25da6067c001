#pragma once

// triptych.v1.GenerateRequest as a ChatRequest.

#include "absl/status/statusor.h"
#include "services/gateway/request/chat_request.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::services {

// Takes texts and media bytes out of `request`. INVALID_ARGUMENT: a part without content, or too
// many pictures. Ranges are Intake's.
absl::StatusOr<ChatRequest> FromProto(v1::GenerateRequest&& request);

}  // namespace triptych::services
