#include "services/gateway/request/openai_request.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/inline_media.h"
#include "services/gateway/request/json.h"

namespace triptych::services {
namespace {

absl::Status Invalid(absl::string_view sentence) { return Refuse("invalid_request", sentence); }

absl::Status WrongType(absl::string_view key) {
  return Invalid(absl::StrCat(key, " has the wrong type"));
}

// Present members of an object, by type; absent and null ones leave `*to` as it is.
class Members {
 public:
  explicit Members(JsonValue& object) : object_(object) {}

  JsonValue* Find(absl::string_view key) const {
    JsonValue* member = object_.Find(key);
    return member == nullptr || member->is_null() ? nullptr : member;
  }

  template <typename T>
  absl::Status Read(absl::string_view key, T* to) const {
    JsonValue* member = Find(key);
    if (member == nullptr) return absl::OkStatus();
    T* value = member->As<T>();
    if (value == nullptr) return WrongType(key);
    *to = std::move(*value);
    return absl::OkStatus();
  }

  absl::Status ReadNumber(absl::string_view key, double* to) const {
    JsonValue* member = Find(key);
    if (member == nullptr) return absl::OkStatus();
    if (const auto* real = member->As<double>()) {
      *to = *real;
    } else if (const auto* integer = member->As<int64_t>()) {
      *to = static_cast<double>(*integer);
    } else {
      return WrongType(key);
    }
    return absl::OkStatus();
  }

 private:
  JsonValue& object_;
};

absl::StatusOr<ChatMedia> ReadVideo(const Members& part) {
  JsonValue* video = part.Find("video_url");
  if (video == nullptr || video->As<JsonObject>() == nullptr) return WrongType("video_url");
  const Members members(*video);
  double fps = 0;
  RETURN_IF_ERROR(part.ReadNumber("fps", &fps));
  RETURN_IF_ERROR(members.ReadNumber("fps", &fps));
  if (fps < 0 || !std::isfinite(fps)) return Invalid("fps is above 0");
  const JsonValue* url = members.Find("url");
  if (url == nullptr || url->As<std::string>() == nullptr) return WrongType("url");
  return ParseVideoUrl(*url->As<std::string>(), fps);
}

absl::StatusOr<ChatMedia> ReadImage(const Members& part) {
  JsonValue* image = part.Find("image_url");
  if (image == nullptr) return WrongType("image_url");
  const JsonValue* url = image->Find("url");
  if (url == nullptr || url->As<std::string>() == nullptr) return WrongType("url");
  return ParseImageUrl(*url->As<std::string>());
}

absl::StatusOr<ChatPart> ReadPart(JsonValue& value) {
  if (value.As<JsonObject>() == nullptr) return WrongType("content");
  const Members part(value);
  std::string type;
  RETURN_IF_ERROR(part.Read("type", &type));
  if (type == "text") {
    std::string text;
    if (part.Find("text") == nullptr) return WrongType("text");
    RETURN_IF_ERROR(part.Read("text", &text));
    return ChatPart(std::move(text));
  }
  if (type == "image_url") {
    ASSIGN_OR_RETURN(ChatMedia media, ReadImage(part));
    return ChatPart(std::move(media));
  }
  if (type == "video_url") {
    ASSIGN_OR_RETURN(ChatMedia media, ReadVideo(part));
    return ChatPart(std::move(media));
  }
  return Invalid("a content part is text, image_url or video_url");
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
      if (name != nullptr && *name != "text" && ++items > kMaxItems) {
        return Refuse("too_many_images");
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ChatMessage> ReadMessage(JsonValue& value) {
  if (value.As<JsonObject>() == nullptr) return WrongType("messages");
  const Members members(value);
  ChatMessage message;
  RETURN_IF_ERROR(members.Read("role", &message.role));
  JsonValue* content = members.Find("content");
  if (content == nullptr) return WrongType("content");
  if (auto* text = content->As<std::string>()) {
    message.parts.emplace_back(std::move(*text));
    return message;
  }
  JsonArray* parts = content->As<JsonArray>();
  if (parts == nullptr) return WrongType("content");
  for (JsonValue& part : *parts) {
    ASSIGN_OR_RETURN(ChatPart read, ReadPart(part));
    message.parts.push_back(std::move(read));
  }
  return message;
}

absl::Status ReadStop(const Members& members, std::vector<std::string>* stop) {
  JsonValue* value = members.Find("stop");
  if (value == nullptr) return absl::OkStatus();
  if (auto* text = value->As<std::string>()) {
    stop->push_back(std::move(*text));
    return absl::OkStatus();
  }
  JsonArray* list = value->As<JsonArray>();
  if (list == nullptr) return WrongType("stop");
  for (JsonValue& entry : *list) {
    auto* text = entry.As<std::string>();
    if (text == nullptr) return WrongType("stop");
    stop->push_back(std::move(*text));
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const Members& members, ChatRequest* chat) {
  RETURN_IF_ERROR(members.ReadNumber("temperature", &chat->temperature));
  RETURN_IF_ERROR(members.ReadNumber("top_p", &chat->top_p));
  RETURN_IF_ERROR(members.Read("top_k", &chat->top_k));
  if (chat->top_k == -1) chat->top_k = 0;  // how other servers say "off"
  RETURN_IF_ERROR(members.Read("n", &chat->choices));
  if (members.Find("seed") != nullptr) {
    int64_t seed = 0;
    RETURN_IF_ERROR(members.Read("seed", &seed));
    chat->seed = static_cast<uint64_t>(seed);
  }
  for (const char* key : {"max_tokens", "max_completion_tokens"}) {
    if (members.Find(key) == nullptr) continue;
    int64_t max_tokens = 0;
    RETURN_IF_ERROR(members.Read(key, &max_tokens));
    chat->max_tokens = max_tokens;
  }
  bool logprobs = false;
  RETURN_IF_ERROR(members.Read("logprobs", &logprobs));
  int64_t top_logprobs = 0;
  RETURN_IF_ERROR(members.Read("top_logprobs", &top_logprobs));
  if (top_logprobs < 0 || (top_logprobs > 0 && !logprobs)) {
    return Invalid("top_logprobs is at least 0 and needs logprobs");
  }
  if (logprobs) chat->top_logprobs = top_logprobs;
  return absl::OkStatus();
}

// What would change the answer and is not offered.
absl::Status CheckNotOffered(const Members& members) {
  for (const char* key : {"tools", "functions", "audio", "logit_bias"}) {
    const JsonValue* value = members.Find(key);
    if (value == nullptr) continue;
    const JsonArray* list = value->As<JsonArray>();
    const JsonObject* object = value->As<JsonObject>();
    const bool empty = (list != nullptr && list->empty()) || (object != nullptr && object->empty());
    if (!empty) return Invalid(absl::StrCat(key, " is not offered"));
  }
  const std::pair<const char*, double> neutral[] = {
      {"presence_penalty", 0}, {"frequency_penalty", 0}, {"repetition_penalty", 1}, {"min_p", 0}};
  for (const auto& [key, nothing] : neutral) {
    double value = nothing;
    RETURN_IF_ERROR(members.ReadNumber(key, &value));
    if (value != nothing) return Invalid(absl::StrCat(key, " is not offered"));
  }
  for (const char* key : {"guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    if (members.Find(key) != nullptr) return Invalid(absl::StrCat(key, " is not offered"));
  }
  JsonValue* format = members.Find("response_format");
  if (format == nullptr) return absl::OkStatus();
  std::string type;
  if (format->As<JsonObject>() != nullptr) RETURN_IF_ERROR(Members(*format).Read("type", &type));
  return type == "text" ? absl::OkStatus()
                        : Invalid("response_format other than text is not offered");
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(absl::string_view body) {
  ASSIGN_OR_RETURN(JsonValue root, ParseJson(body));
  if (root.As<JsonObject>() == nullptr) return Invalid("the body is not an object");
  const Members members(root);
  OpenAiRequest request;
  ChatRequest& chat = request.chat;
  RETURN_IF_ERROR(CheckNotOffered(members));
  RETURN_IF_ERROR(members.Read("model", &chat.model));
  RETURN_IF_ERROR(members.Read("stream", &request.stream));
  RETURN_IF_ERROR(members.Read("timeout_ms", &chat.timeout_ms));
  RETURN_IF_ERROR(members.Read("priority", &chat.priority));
  RETURN_IF_ERROR(ReadSampling(members, &chat));
  RETURN_IF_ERROR(ReadStop(members, &chat.stop));
  if (JsonValue* options = members.Find("stream_options"); options != nullptr) {
    if (options->As<JsonObject>() == nullptr) return WrongType("stream_options");
    RETURN_IF_ERROR(Members(*options).Read("include_usage", &request.include_usage));
  }
  JsonValue* messages = members.Find("messages");
  if (messages == nullptr) return Invalid("there are no messages");
  JsonArray* list = messages->As<JsonArray>();
  if (list == nullptr) return WrongType("messages");
  RETURN_IF_ERROR(CheckItemCount(*list));
  for (JsonValue& value : *list) {
    ASSIGN_OR_RETURN(ChatMessage message, ReadMessage(value));
    chat.messages.push_back(std::move(message));
  }
  return request;
}

}  // namespace triptych::services
