#include "services/gateway/request/openai_request.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/json.h"
#include "services/gateway/request/json_members.h"
#include "services/gateway/request/openai_messages.h"
#include "services/gateway/request/request_fields.h"

namespace triptych::services {
namespace {

absl::Status Invalid(absl::string_view sentence) { return Refuse("invalid_request", sentence); }

absl::Status ReadStop(const Members& members, ChatRequest* chat) {
  JsonValue* value = members.Find("stop");
  if (value == nullptr) return absl::OkStatus();
  if (auto* text = value->As<std::string>()) {
    chat->stop.push_back(std::move(*text));
    return absl::OkStatus();
  }
  return members.ReadList("stop", &chat->stop);
}

absl::Status ReadLength(const Members& members, ChatRequest* chat) {
  for (const char* key : {"max_tokens", "max_completion_tokens"}) {
    if (members.Find(key) == nullptr) continue;
    int64_t max_tokens = 0;
    RETURN_IF_ERROR(members.Read(key, &max_tokens));
    chat->max_tokens = max_tokens;
  }
  RETURN_IF_ERROR(members.Read("min_tokens", &chat->min_tokens));
  RETURN_IF_ERROR(members.Read("ignore_eos", &chat->ignore_eos));
  RETURN_IF_ERROR(members.ReadList("stop_token_ids", &chat->stop_token_ids));
  RETURN_IF_ERROR(members.Read("include_stop_str_in_output", &chat->include_stop));
  RETURN_IF_ERROR(members.Read("skip_special_tokens", &chat->skip_special_tokens));
  return ReadStop(members, chat);
}

// A chat's `logprobs` is a switch, a completion's the number of likeliest tokens.
absl::Status ReadLogprobs(const Members& members, Endpoint endpoint, ChatRequest* chat) {
  if (endpoint == Endpoint::kCompletions) return members.Read("logprobs", &chat->top_logprobs);
  bool logprobs = false;
  RETURN_IF_ERROR(members.Read("logprobs", &logprobs));
  int64_t top_logprobs = 0;
  RETURN_IF_ERROR(members.Read("top_logprobs", &top_logprobs));
  if (top_logprobs < 0 || (top_logprobs > 0 && !logprobs)) {
    return At("top_logprobs", Invalid("top_logprobs is at least 0 and needs logprobs"));
  }
  if (logprobs) chat->top_logprobs = top_logprobs;
  return absl::OkStatus();
}

// `{"ID": BIAS, ...}`, the id of a token as text.
absl::Status ReadBiases(const Members& members, ChatRequest* chat) {
  constexpr char kName[] = "logit_bias";
  JsonValue* biases = members.Find(kName);
  if (biases == nullptr) return absl::OkStatus();
  JsonObject* object = biases->As<JsonObject>();
  if (object == nullptr) return WrongType(kName, *biases, "an object");
  for (const auto& [name, value] : *object) {
    auto& [id, bias] = chat->logit_bias.emplace_back();
    if (!absl::SimpleAtoi(name, &id)) {
      return At(kName, Invalid("a name in logit_bias is the id of a token"));
    }
    const absl::Status read = ReadNumber(name, value, &bias);
    if (!read.ok()) return At(kName, read);
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const Members& members, ChatRequest* chat) {
  RETURN_IF_ERROR(members.ReadNumber("temperature", &chat->temperature));
  RETURN_IF_ERROR(members.ReadNumber("top_p", &chat->top_p));
  RETURN_IF_ERROR(members.Read("top_k", &chat->top_k));
  if (chat->top_k == -1) chat->top_k = 0;  // how other servers say "off"
  RETURN_IF_ERROR(members.ReadNumber("min_p", &chat->min_p));
  RETURN_IF_ERROR(members.ReadNumber("repetition_penalty", &chat->repetition_penalty));
  RETURN_IF_ERROR(members.ReadNumber("presence_penalty", &chat->presence_penalty));
  RETURN_IF_ERROR(members.ReadNumber("frequency_penalty", &chat->frequency_penalty));
  RETURN_IF_ERROR(ReadBiases(members, chat));
  RETURN_IF_ERROR(members.ReadList("bad_words", &chat->bad_words));
  if (members.Find("seed") != nullptr) {
    int64_t seed = 0;
    RETURN_IF_ERROR(members.Read("seed", &seed));
    chat->seed = static_cast<uint64_t>(seed);
  }
  return members.Read("n", &chat->choices);
}

absl::Status CheckResponseFormat(const Members& members) {
  JsonValue* format = members.Find("response_format");
  if (format == nullptr) return absl::OkStatus();
  if (format->As<JsonObject>() == nullptr) {
    return WrongType("response_format", *format, "an object");
  }
  std::string type;
  RETURN_IF_ERROR(Members(*format).Read("type", &type));
  if (type == "text") return absl::OkStatus();
  return At("response_format", Invalid("response_format other than text is not offered"));
}

absl::Status ReadStreaming(const Members& members, OpenAiRequest* request) {
  RETURN_IF_ERROR(members.Read("stream", &request->stream));
  JsonValue* options = members.Find("stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (options->As<JsonObject>() == nullptr) {
    return WrongType("stream_options", *options, "an object");
  }
  const Members inner(*options);
  RETURN_IF_ERROR(inner.Read("include_usage", &request->include_usage));
  return inner.Read("continuous_usage_stats", &request->continuous_usage);
}

absl::Status CheckFields(JsonObject& root, OpenAiRequest* request) {
  for (const auto& [name, value] : root) {
    const RequestField* field = FindRequestField(name);
    if (field != nullptr) {
      RETURN_IF_ERROR(CheckRequestField(*field, value));
    } else if (request->unknown.size() < kMaxUnknown) {
      request->unknown.push_back(name.substr(0, 64));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RawPrompt> ReadTokens(JsonArray& list, const std::string& member) {
  std::vector<int64_t> ids;
  for (JsonValue& value : list) {
    const auto* id = value.As<int64_t>();
    if (id == nullptr) return WrongType(member, value, "a text or a list of token ids");
    ids.push_back(*id);
  }
  return RawPrompt(std::move(ids));
}

// A text, a list of texts, a list of token ids, or a list of such lists.
absl::StatusOr<std::vector<RawPrompt>> ReadPrompts(const Members& members) {
  JsonValue* value = members.Find("prompt");
  if (value == nullptr) return Missing("prompt");
  std::vector<RawPrompt> prompts;
  if (auto* text = value->As<std::string>()) {
    prompts.emplace_back(std::move(*text));
    return prompts;
  }
  JsonArray* list = value->As<JsonArray>();
  if (list == nullptr) return WrongType("prompt", *value, "a text or a list");
  if (list->empty()) return At("prompt", Invalid("prompt is empty"));
  if (list->front().As<int64_t>() != nullptr) {
    ASSIGN_OR_RETURN(RawPrompt prompt, ReadTokens(*list, "prompt"));
    prompts.push_back(std::move(prompt));
    return prompts;
  }
  if (list->size() > static_cast<size_t>(kMaxChoices)) {
    return At("prompt", Invalid(absl::StrCat("there are ", list->size(), " prompts, at most ",
                                             kMaxChoices, " are taken")));
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string member = absl::StrCat("prompt[", i, "]");
    JsonValue& entry = (*list)[i];
    if (auto* text = entry.As<std::string>()) {
      prompts.emplace_back(std::move(*text));
    } else if (JsonArray* tokens = entry.As<JsonArray>()) {
      ASSIGN_OR_RETURN(RawPrompt prompt, ReadTokens(*tokens, member));
      prompts.push_back(std::move(prompt));
    } else {
      return WrongType(member, entry, "a text or a list of token ids");
    }
  }
  return prompts;
}

absl::Status ReadConversation(const Members& members, ChatRequest* chat) {
  JsonValue* messages = members.Find("messages");
  if (messages == nullptr) return At("messages", Invalid("there are no messages"));
  JsonArray* list = messages->As<JsonArray>();
  if (list == nullptr) return WrongType("messages", *messages, "a list");
  ASSIGN_OR_RETURN(chat->messages, ReadMessages(list));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(absl::string_view body, Endpoint endpoint) {
  ASSIGN_OR_RETURN(JsonValue root, ParseJson(body));
  JsonObject* object = root.As<JsonObject>();
  if (object == nullptr) {
    return Invalid(absl::StrCat("the body is an object, not ", NameOfType(root)));
  }
  const Members members(root);
  OpenAiRequest request;
  ChatRequest chat;
  RETURN_IF_ERROR(CheckFields(*object, &request));
  RETURN_IF_ERROR(members.Read("model", &chat.model));
  RETURN_IF_ERROR(members.Read("timeout_ms", &chat.timeout_ms));
  RETURN_IF_ERROR(members.Read("priority", &chat.priority));
  RETURN_IF_ERROR(ReadStreaming(members, &request));
  RETURN_IF_ERROR(ReadSampling(members, &chat));
  RETURN_IF_ERROR(ReadLength(members, &chat));
  RETURN_IF_ERROR(ReadLogprobs(members, endpoint, &chat));
  RETURN_IF_ERROR(CheckResponseFormat(members));
  if (endpoint == Endpoint::kChat) {
    RETURN_IF_ERROR(ReadConversation(members, &chat));
    request.prompts.push_back(std::move(chat));
    return request;
  }
  // OpenAI's own default for this old endpoint.
  constexpr int64_t kDefaultCompletionTokens = 16;
  if (!chat.max_tokens) chat.max_tokens = kDefaultCompletionTokens;
  ASSIGN_OR_RETURN(std::vector<RawPrompt> prompts, ReadPrompts(members));
  for (RawPrompt& prompt : prompts) {
    request.prompts.push_back(chat);
    request.prompts.back().prompt = std::move(prompt);
  }
  return request;
}

}  // namespace triptych::services
