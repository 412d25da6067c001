#pragma once

// triptych.v1.GenerateRequest, from a client's bytes to a ChatRequest.

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"
#include "services/gateway/request/chat_request.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::services {

// The fields of a message, in all its parts together. A field takes two bytes on the wire and a
// hundred as an object: they are counted first.
inline constexpr int kMaxRequestFields = 200'000;

// Parses what a client sent. INVALID_ARGUMENT: not such a message, text that is not UTF-8, or more
// than kMaxRequestFields fields.
absl::StatusOr<v1::GenerateRequest> ReadGenerateRequest(const grpc::ByteBuffer& bytes);

// Takes texts and media bytes out of `request`. INVALID_ARGUMENT: a part without content, or too
// many pictures. Ranges are Intake's.
absl::StatusOr<ChatRequest> FromProto(v1::GenerateRequest&& request);

}  // namespace triptych::services
