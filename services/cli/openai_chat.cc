#include "services/cli/openai_chat.h"

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace triptych::services {
namespace {

using Json = nlohmann::json;

absl::string_view MediaType(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "\x89PNG")) return "image/png";
  if (absl::StartsWith(bytes, "RIFF")) return "image/webp";
  return "image/jpeg";
}

Json PartJson(const v1::ContentPart& part) {
  if (!part.has_image()) return {{"type", "text"}, {"text", part.text()}};
  const std::string& bytes = part.image().data();
  return {
      {"type", "image_url"},
      {"image_url",
       {{"url", absl::StrCat("data:", MediaType(bytes), ";base64,", absl::Base64Escape(bytes))}}}};
}

}  // namespace

std::string OpenAiBody(const v1::GenerateRequest& request, const std::string& model) {
  Json messages = Json::array();
  for (const v1::Message& message : request.messages()) {
    Json content = Json::array();
    for (const v1::ContentPart& part : message.content()) content.push_back(PartJson(part));
    messages.push_back({{"role", message.role()}, {"content", std::move(content)}});
  }
  const Json body = {{"model", model},
                     {"messages", std::move(messages)},
                     {"max_tokens", request.max_tokens()},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusCode CodeOfHttpStatus(int status) {
  switch (status) {
    case 200:
      return absl::StatusCode::kOk;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kAlreadyExists;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 503:
      return absl::StatusCode::kUnavailable;
    case 408:
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return status >= 400 && status < 500 ? absl::StatusCode::kInvalidArgument
                                           : absl::StatusCode::kInternal;
  }
}

std::string ErrorSentence(absl::string_view json) {
  const Json body = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  const Json error = body.is_object() ? body.value("error", Json()) : Json();
  const Json message = error.is_object() ? error.value("message", Json()) : error;
  if (message.is_string()) return message.get<std::string>();
  constexpr size_t kLongest = 200;
  return std::string(json.substr(0, kLongest));
}

void EventStreamReader::Feed(absl::string_view bytes) {
  while (true) {
    const size_t end = bytes.find('\n');
    if (end == absl::string_view::npos) break;
    if (rest_.empty()) {
      Take(bytes.substr(0, end));
    } else {
      rest_.append(bytes.data(), end);
      Take(rest_);
      rest_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
  rest_.append(bytes.data(), bytes.size());
}

void EventStreamReader::Take(absl::string_view line) {
  line = absl::StripSuffix(line, "\r");
  if (!absl::ConsumePrefix(&line, "data:")) return;
  line = absl::StripLeadingAsciiWhitespace(line);
  if (line == "[DONE]") {
    events_.done = true;
    return;
  }
  const Json event = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object() || event.contains("error")) {
    events_.failed = true;
    events_.error = ErrorSentence(line);
    return;
  }
  const Json& choices = event.value("choices", Json::array());
  if (choices.is_array() && !choices.empty() && choices[0].is_object()) {
    const Json delta = choices[0].value("delta", Json::object());
    // An event without text opens the answer, before any token.
    const Json content = delta.is_object() ? delta.value("content", Json()) : Json();
    if (content.is_string() && !content.get_ref<const std::string&>().empty()) ++events_.parts;
  }
  const Json usage = event.value("usage", Json());
  if (usage.is_object()) events_.output_tokens = usage.value("completion_tokens", 0);
}

}  // namespace triptych::services
