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

// INVALID_ARGUMENT `too_many_images`, with the limit.
absl::Status TooManyItems();
absl::Status TooManyFrames();

// `data:image/jpeg;base64,...`: one frame. What type the URL names, with what parameters and in
// what case, does not matter: the bytes decide, and that is Intake's question. INVALID_ARGUMENT
// `unsupported_image_source`, with the reason, for any other scheme and for what is not base64.
absl::StatusOr<ChatMedia> ParseImageUrl(absl::string_view url);

// `data:video/jpeg;base64,F,F,...` (or png, webp): one frame each, in order. Errors as above, and
// for a type that is a file of a video, which is not read.
absl::StatusOr<ChatMedia> ParseVideoUrl(absl::string_view url, double fps);

}  // namespace triptych::services
