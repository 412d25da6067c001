#include "services/gateway/request/openai_messages.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/inline_media.h"
#include "services/gateway/request/json_members.h"

namespace triptych::services {
namespace {

absl::Status Invalid(absl::string_view sentence) { return Refuse("invalid_request", sentence); }

// The URL of `{"url": ...}`, or of a plain string in its place.
absl::StatusOr<const std::string*> UrlOf(JsonValue& source, const char* key) {
  if (const auto* url = source.As<std::string>()) return url;
  if (source.As<JsonObject>() == nullptr) return WrongType(key, source, "an object with a url");
  const JsonValue* url = Members(source).Find("url");
  if (url == nullptr) return At(key, Missing("url"));
  if (url->As<std::string>() == nullptr) return At(key, WrongType("url", *url, "a string"));
  return url->As<std::string>();
}

absl::StatusOr<ChatMedia> ReadVideo(const Members& part) {
  JsonValue* video = part.Find("video_url");
  if (video == nullptr) return Missing("video_url");
  double fps = 0;
  RETURN_IF_ERROR(part.ReadNumber("fps", &fps));
  RETURN_IF_ERROR(Members(*video).ReadNumber("fps", &fps));
  if (fps < 0 || !std::isfinite(fps)) return At("fps", Invalid("fps is above 0"));
  ASSIGN_OR_RETURN(const std::string* url, UrlOf(*video, "video_url"));
  absl::StatusOr<ChatMedia> media = ParseVideoUrl(*url, fps);
  if (!media.ok()) return At("video_url", media.status());
  return media;
}

absl::StatusOr<ChatMedia> ReadImage(const Members& part) {
  JsonValue* image = part.Find("image_url");
  if (image == nullptr) return Missing("image_url");
  ASSIGN_OR_RETURN(const std::string* url, UrlOf(*image, "image_url"));
  absl::StatusOr<ChatMedia> media = ParseImageUrl(*url);
  if (!media.ok()) return At("image_url", media.status());
  return media;
}

absl::StatusOr<ChatPart> ReadText(const Members& part, const char* key) {
  std::string text;
  if (part.Find(key) == nullptr) return Missing(key);
  RETURN_IF_ERROR(part.Read(key, &text));
  return ChatPart(std::move(text));
}

absl::StatusOr<ChatPart> ReadPart(JsonValue& value) {
  if (auto* text = value.As<std::string>()) return ChatPart(std::move(*text));
  if (value.As<JsonObject>() == nullptr) {
    return Invalid(absl::StrCat("a content part is an object, not ", NameOfType(value)));
  }
  const Members part(value);
  std::string type;
  RETURN_IF_ERROR(part.Read("type", &type));
  if (type == "text") return ReadText(part, "text");
  // A refusal that another model once answered with, sent back.
  if (type == "refusal") return ReadText(part, "refusal");
  if (type == "image_url") {
    ASSIGN_OR_RETURN(ChatMedia media, ReadImage(part));
    return ChatPart(std::move(media));
  }
  if (type == "video_url") {
    ASSIGN_OR_RETURN(ChatMedia media, ReadVideo(part));
    return ChatPart(std::move(media));
  }
  if (type == "input_audio" || type == "audio_url") {
    return At("type", Invalid("audio is not offered"));
  }
  return At("type", Invalid("a content part is text, image_url or video_url"));
}

// Before any picture is decoded from base64: a request of a million parts costs nothing.
absl::Status CheckItemCount(const JsonArray& messages) {
  int items = 0;
  for (const JsonValue& message : messages) {
    const JsonValue* content = message.Find("content");
    const JsonArray* parts = content == nullptr ? nullptr : content->As<JsonArray>();
    if (parts == nullptr) continue;
    for (const JsonValue& part : *parts) {
      const JsonValue* type = part.Find("type");
      const std::string* name = type == nullptr ? nullptr : type->As<std::string>();
      if (name != nullptr && *name != "text" && *name != "refusal" && ++items > kMaxItems) {
        return TooManyItems();
      }
    }
  }
  return absl::OkStatus();
}

// Tool conversations are refused by name: what is left of one without its tools would mislead the
// model.
absl::Status CheckNoTools(const Members& message, const std::string& role) {
  constexpr char kSentence[] = "tools are not offered";
  if (role == "tool" || role == "function") return At("role", Invalid(kSentence));
  for (const char* key : {"tool_calls", "function_call"}) {
    JsonValue* calls = message.Find(key);
    if (calls == nullptr) continue;
    const JsonArray* list = calls->As<JsonArray>();
    if (list == nullptr || !list->empty()) return At(key, Invalid(kSentence));
  }
  return absl::OkStatus();
}

absl::Status ReadContent(JsonValue& content, ChatMessage* message) {
  if (auto* text = content.As<std::string>()) {
    message->parts.emplace_back(std::move(*text));
    return absl::OkStatus();
  }
  JsonArray* parts = content.As<JsonArray>();
  if (parts == nullptr) return WrongType("content", content, "a string or a list of parts");
  for (size_t i = 0; i < parts->size(); ++i) {
    absl::StatusOr<ChatPart> part = ReadPart((*parts)[i]);
    if (!part.ok()) return At(absl::StrCat("content[", i, "]"), part.status());
    message->parts.push_back(*std::move(part));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChatMessage> ReadMessage(JsonValue& value) {
  if (value.As<JsonObject>() == nullptr) {
    return Invalid(absl::StrCat("a message is an object, not ", NameOfType(value)));
  }
  const Members members(value);
  ChatMessage message;
  if (members.Find("role") == nullptr) return Missing("role");
  RETURN_IF_ERROR(members.Read("role", &message.role));
  RETURN_IF_ERROR(CheckNoTools(members, message.role));
  JsonValue* content = members.Find("content");
  if (content != nullptr) {
    RETURN_IF_ERROR(ReadContent(*content, &message));
  } else if (message.role != "assistant") {
    return Missing("content");
  } else if (std::string refusal; members.Find("refusal") != nullptr) {
    RETURN_IF_ERROR(members.Read("refusal", &refusal));
    message.parts.emplace_back(std::move(refusal));
  }
  return message;
}

}  // namespace

absl::StatusOr<std::vector<ChatMessage>> ReadMessages(JsonArray* messages) {
  RETURN_IF_ERROR(CheckItemCount(*messages));
  std::vector<ChatMessage> read;
  for (size_t i = 0; i < messages->size(); ++i) {
    absl::StatusOr<ChatMessage> message = ReadMessage((*messages)[i]);
    if (!message.ok()) return At(absl::StrCat("messages[", i, "]"), message.status());
    read.push_back(*std::move(message));
  }
  return read;
}

}  // namespace triptych::services
