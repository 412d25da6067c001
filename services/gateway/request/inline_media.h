#pragma once

// Pictures and videos inside data: URLs, the only source that is accepted: nothing here ever opens
// a connection or a file.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/gateway/request/chat_request.h"

namespace triptych::services {

// At most this many frames in a video, and pictures and videos in a request.
inline constexpr int kMaxVideoFrames = 256;
inline constexpr int kMaxItems = 64;

// `data:image/jpeg;base64,...` (png and webp too): one frame. INVALID_ARGUMENT
// `unsupported_image_source` for any other scheme or type, or bytes that are not base64. Whether
// the bytes are a picture is Intake's question.
absl::StatusOr<ChatMedia> ParseImageUrl(absl::string_view url);

// `data:video/jpeg;base64,F,F,...` (or video/png): one frame each, in order. Errors as above.
absl::StatusOr<ChatMedia> ParseVideoUrl(absl::string_view url, double fps);

}  // namespace triptych::services
