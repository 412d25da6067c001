#include "services/gateway/request/inline_media.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "services/gateway/request/base64.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

// What follows `data:<kind>/<format>;base64,` for one of `formats`.
absl::StatusOr<absl::string_view> Content(absl::string_view url, absl::string_view kind,
                                          std::initializer_list<absl::string_view> formats) {
  // No longer than the longest prefix that is accepted.
  constexpr size_t kLongestPrefix = 64;
  const size_t comma = url.substr(0, kLongestPrefix).find(',');
  if (comma == absl::string_view::npos) return Refuse("unsupported_image_source");
  absl::string_view head = url.substr(0, comma);
  if (!absl::StartsWithIgnoreCase(head, "data:")) return Refuse("unsupported_image_source");
  head.remove_prefix(5);
  for (absl::string_view format : formats) {
    if (head.size() == kind.size() + 1 + format.size() + 7 && absl::StartsWith(head, kind) &&
        head[kind.size()] == '/' && head.substr(kind.size() + 1, format.size()) == format &&
        absl::EndsWith(head, ";base64")) {
      return url.substr(comma + 1);
    }
  }
  return Refuse("unsupported_image_source");
}

}  // namespace

absl::StatusOr<ChatMedia> ParseImageUrl(absl::string_view url) {
  ASSIGN_OR_RETURN(const absl::string_view content,
                   Content(url, "image", {"jpeg", "jpg", "png", "webp"}));
  ChatMedia media;
  media.frames.emplace_back();
  if (!DecodeBase64(content, &media.frames[0])) return Refuse("unsupported_image_source");
  return media;
}

absl::StatusOr<ChatMedia> ParseVideoUrl(absl::string_view url, double fps) {
  ASSIGN_OR_RETURN(absl::string_view content, Content(url, "video", {"jpeg", "png", "webp"}));
  ChatMedia media;
  media.kind = scheduler::ItemKind::kVideo;
  media.fps = fps;
  while (true) {
    if (media.frames.size() == kMaxVideoFrames) {
      return Refuse("too_many_images", "a video has too many frames");
    }
    const size_t comma = content.find(',');
    media.frames.emplace_back();
    if (!DecodeBase64(content.substr(0, comma), &media.frames.back())) {
      return Refuse("unsupported_image_source");
    }
    if (comma == absl::string_view::npos) return media;
    content.remove_prefix(comma + 1);
  }
}

}  // namespace triptych::services
