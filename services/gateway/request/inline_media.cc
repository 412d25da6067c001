#include "services/gateway/request/inline_media.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

constexpr char kSource[] = "unsupported_image_source";
constexpr char kNotBase64[] = "the base64 of a data: URL has a character that does not belong";

// The two halves of a data: URL (RFC 2397) in base64.
struct InlineUrl {
  absl::string_view type;  // without parameters; may be empty
  absl::string_view content;
};

absl::StatusOr<InlineUrl> Split(absl::string_view url) {
  // Types with their parameters are short; a comma far behind is one of the content.
  constexpr size_t kLongestHead = 1024;
  constexpr absl::string_view kScheme = "data:";
  url = absl::StripLeadingAsciiWhitespace(url);
  if (!absl::StartsWithIgnoreCase(url, kScheme)) return Refuse(kSource);
  const size_t comma = url.substr(0, kLongestHead).find(',');
  if (comma == absl::string_view::npos) return Refuse(kSource, "a data: URL without a comma");
  const absl::string_view head =
      absl::StripAsciiWhitespace(url.substr(kScheme.size(), comma - kScheme.size()));
  const size_t last = head.rfind(';');
  const bool base64 =
      last != absl::string_view::npos &&
      absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(head.substr(last + 1)), "base64");
  if (!base64) return Refuse(kSource, "a data: URL of a picture is in base64: data:...;base64,...");
  return InlineUrl{.type = absl::StripAsciiWhitespace(head.substr(0, head.find(';'))),
                   .content = url.substr(comma + 1)};
}

// What a list of frames calls itself; any other type of video is a file.
bool NamesFrames(absl::string_view type) {
  for (const char* format : {"jpeg", "jpg", "png", "webp", "gif"}) {
    if (absl::EqualsIgnoreCase(type, absl::StrCat("video/", format))) return true;
  }
  return false;
}

}  // namespace

absl::Status TooManyItems() {
  return Refuse("too_many_images",
                absl::StrCat("a request has at most ", kMaxItems, " pictures and videos"));
}

absl::Status TooManyFrames() {
  return Refuse("too_many_images",
                absl::StrCat("a video has at most ", kMaxVideoFrames, " frames"));
}

absl::StatusOr<ChatMedia> ParseImageUrl(absl::string_view url) {
  ASSIGN_OR_RETURN(const InlineUrl parts, Split(url));
  ChatMedia media;
  media.frames.emplace_back();
  if (!absl::Base64Unescape(parts.content, &media.frames[0])) return Refuse(kSource, kNotBase64);
  return media;
}

absl::StatusOr<ChatMedia> ParseVideoUrl(absl::string_view url, double fps) {
  ASSIGN_OR_RETURN(const InlineUrl parts, Split(url));
  if (!NamesFrames(parts.type)) {
    return Refuse(kSource,
                  "files of videos are not read: send frames, data:video/jpeg;base64,FRAME,FRAME");
  }
  absl::string_view content = parts.content;
  ChatMedia media;
  media.kind = scheduler::ItemKind::kVideo;
  media.fps = fps;
  while (true) {
    if (media.frames.size() == kMaxVideoFrames) return TooManyFrames();
    const size_t comma = content.find(',');
    std::string& frame = media.frames.emplace_back();
    if (!absl::Base64Unescape(content.substr(0, comma), &frame)) return Refuse(kSource, kNotBase64);
    if (frame.empty()) {
      return Refuse(kSource, absl::StrCat("frame ", media.frames.size() - 1, " is empty"));
    }
    if (comma == absl::string_view::npos) return media;
    content.remove_prefix(comma + 1);
  }
}

}  // namespace triptych::services
