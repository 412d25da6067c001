#include "services/gateway/http/answer_json.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

// As OpenAI's API writes minus infinity.
constexpr float kLowestLogprob = -9999;

const char* FinishName(scheduler::Finish finish) {
  return finish == scheduler::Finish::kLength ? "length" : "stop";
}

void AppendNumber(float value, std::string* out) {
  absl::StrAppend(out, std::isfinite(value) ? std::max(value, kLowestLogprob) : kLowestLogprob);
}

// "token":...,"logprob":...,"bytes":[...]
void AppendLogprob(const models::Tokenizer& tokenizer, int32_t token, float logprob,
                   std::string* out) {
  const absl::string_view bytes = tokenizer.TokenBytes(token);
  *out += "\"token\":";
  AppendJsonString(tokenizer.Decode({token}), out);
  *out += ",\"logprob\":";
  AppendNumber(logprob, out);
  *out += ",\"bytes\":[";
  for (size_t i = 0; i < bytes.size(); ++i) {
    absl::StrAppend(out, i == 0 ? "" : ",", static_cast<int>(static_cast<unsigned char>(bytes[i])));
  }
  *out += ']';
}

void AppendLogprobs(const models::Tokenizer& tokenizer,
                    const std::vector<scheduler::SampledToken>& tokens, std::string* out) {
  *out += "{\"content\":[";
  for (size_t i = 0; i < tokens.size(); ++i) {
    *out += i == 0 ? "{" : ",{";
    AppendLogprob(tokenizer, tokens[i].token, tokens[i].logprob, out);
    *out += ",\"top_logprobs\":[";
    for (size_t k = 0; k < tokens[i].top.size(); ++k) {
      *out += k == 0 ? "{" : ",{";
      AppendLogprob(tokenizer, tokens[i].top[k].token, tokens[i].top[k].logprob, out);
      *out += '}';
    }
    *out += "]}";
  }
  *out += "]}";
}

void AppendUsage(const Usage& usage, std::string* out) {
  absl::StrAppend(out, "{\"prompt_tokens\":", usage.prompt_tokens,
                  ",\"completion_tokens\":", usage.output_tokens,
                  ",\"total_tokens\":", usage.prompt_tokens + usage.output_tokens);
  absl::StrAppend(out, ",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached_tokens,
                  ",\"picture_tokens\":", usage.picture_tokens, "}}");
}

std::string Prefix(const AnswerForm& form, absl::string_view object) {
  std::string prefix = "{\"id\":";
  AppendJsonString(form.request_id, &prefix);
  absl::StrAppend(&prefix, ",\"object\":\"", object, "\",\"created\":", form.created,
                  ",\"model\":");
  AppendJsonString(form.model, &prefix);
  prefix += ",\"choices\":[";
  return prefix;
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  *out += '"';
  size_t start = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = text[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out->append(text.data() + start, i - start);
    start = i + 1;
    if (c == '"' || c == '\\') {
      *out += '\\';
      *out += static_cast<char>(c);
    } else if (c == '\n') {
      *out += "\\n";
    } else {
      *out += "\\u00";
      *out += kHex[c >> 4];
      *out += kHex[c & 15];
    }
  }
  out->append(text.data() + start, text.size() - start);
  *out += '"';
}

std::string ErrorJson(const absl::Status& status, absl::string_view request_id) {
  const ClientError error = ToClientError(status);
  std::string out = absl::StrCat("{\"error\":{\"type\":\"", error.type, "\",\"code\":\"",
                                 error.code, "\",\"message\":");
  AppendJsonString(error.message, &out);
  out += ",\"request_id\":";
  AppendJsonString(request_id, &out);
  out += "}}";
  return out;
}

EventWriter::EventWriter(const models::Tokenizer& tokenizer, const AnswerForm& form)
    : tokenizer_(tokenizer), form_(form), prefix_("data: ") {
  prefix_ += Prefix(form, "chat.completion.chunk");
}

void EventWriter::AppendPart(const AnswerPart& part, std::string* out) {
  // A token without text of its own (half a character, a stop token) is no event, unless its
  // logprob is wanted or it is the first: that one opens the stream.
  if (opened_ && part.text.empty() && !form_.logprobs) return;
  *out += prefix_;
  *out += opened_ ? "{\"index\":0,\"delta\":{\"content\":"
                  : "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":";
  opened_ = true;
  AppendJsonString(part.text, out);
  *out += '}';
  if (form_.logprobs) {
    *out += ",\"logprobs\":";
    AppendLogprobs(tokenizer_, part.tokens, out);
  }
  *out += ",\"finish_reason\":null}]}\n\n";
}

void EventWriter::AppendEnd(const AnswerEnd& end, std::string* out) {
  if (!end.status.ok()) {
    absl::StrAppend(out, "data: ", ErrorJson(end.status, form_.request_id), "\n\n");
    return;
  }
  absl::StrAppend(out, prefix_, "{\"index\":0,\"delta\":{},\"finish_reason\":\"",
                  FinishName(end.finish), "\"}]}\n\n");
  if (form_.include_usage) {
    absl::StrAppend(out, prefix_, "],\"usage\":");
    AppendUsage(end.usage, out);
    *out += "}\n\n";
  }
  *out += "data: [DONE]\n\n";
}

std::string CompletionJson(const models::Tokenizer& tokenizer, const AnswerForm& form,
                           const AnswerPart& part, const AnswerEnd& end) {
  std::string out = Prefix(form, "chat.completion");
  out += "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":";
  AppendJsonString(part.text, &out);
  out += "},\"logprobs\":";
  if (form.logprobs) {
    AppendLogprobs(tokenizer, part.tokens, &out);
  } else {
    out += "null";
  }
  absl::StrAppend(&out, ",\"finish_reason\":\"", FinishName(end.finish), "\"}],\"usage\":");
  AppendUsage(end.usage, &out);
  out += '}';
  return out;
}

}  // namespace triptych::services
