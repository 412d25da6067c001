#include "services/gateway/http/answer_json.h"

#include <algorithm>
#include <cmath>
#include <set>

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

// The older form, of text completions: lists side by side, and where each token's text begins.
void AppendOldLogprobs(const models::Tokenizer& tokenizer,
                       const std::vector<scheduler::SampledToken>& tokens, int64_t* offset,
                       std::string* out) {
  std::string texts, values, tops, offsets;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const char* const comma = i == 0 ? "" : ",";
    const std::string text = tokenizer.Decode({tokens[i].token});
    texts += comma;
    AppendJsonString(text, &texts);
    values += comma;
    AppendNumber(tokens[i].logprob, &values);
    absl::StrAppend(&offsets, comma, *offset);
    *offset += static_cast<int64_t>(text.size());
    absl::StrAppend(&tops, comma, "{");
    std::set<std::string> seen;  // two tokens may have one text; the likelier is kept
    for (const scheduler::TokenLogprob& other : tokens[i].top) {
      const std::string name = tokenizer.Decode({other.token});
      if (!seen.insert(name).second) continue;
      if (seen.size() > 1) tops += ',';
      AppendJsonString(name, &tops);
      tops += ':';
      AppendNumber(other.logprob, &tops);
    }
    tops += '}';
  }
  absl::StrAppend(out, "{\"tokens\":[", texts, "],\"token_logprobs\":[", values);
  absl::StrAppend(out, "],\"top_logprobs\":[", tops, "],\"text_offset\":[", offsets, "]}");
}

void AppendUsage(const Usage& usage, std::string* out) {
  absl::StrAppend(out, "{\"prompt_tokens\":", usage.prompt_tokens,
                  ",\"completion_tokens\":", usage.output_tokens,
                  ",\"total_tokens\":", usage.prompt_tokens + usage.output_tokens);
  absl::StrAppend(out, ",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached_tokens,
                  ",\"text_tokens\":", usage.prompt_tokens - usage.picture_tokens,
                  ",\"image_tokens\":", usage.picture_tokens, "}}");
}

bool IsChat(const AnswerForm& form) { return form.endpoint == Endpoint::kChat; }

std::string Prefix(const AnswerForm& form, absl::string_view object) {
  std::string prefix = "{\"id\":";
  AppendJsonString(form.id, &prefix);
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
  out += ",\"param\":";
  if (error.param.empty()) {
    out += "null";
  } else {
    AppendJsonString(error.param, &out);
  }
  out += ",\"request_id\":";
  AppendJsonString(request_id, &out);
  out += "}}";
  return out;
}

EventWriter::EventWriter(const models::Tokenizer& tokenizer, const AnswerForm& form)
    : tokenizer_(tokenizer), form_(form), prefix_("data: ") {
  prefix_ += Prefix(form, IsChat(form) ? "chat.completion.chunk" : "text_completion");
}

void EventWriter::CloseEvent(const Usage& so_far, std::string* out) {
  *out += ']';
  if (form_.continuous_usage) {
    *out += ",\"usage\":";
    AppendUsage(so_far, out);
  } else if (form_.include_usage) {
    *out += ",\"usage\":null";
  }
  *out += "}\n\n";
}

void EventWriter::AppendOpening(int choices, std::string* out) {
  text_offsets_.resize(static_cast<size_t>(choices));
  if (!IsChat(form_)) return;  // their events have no roles
  for (int i = 0; i < choices; ++i) {
    absl::StrAppend(out, prefix_, "{\"index\":", i,
                    ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                    "\"finish_reason\":null}");
    CloseEvent({}, out);
  }
}

void EventWriter::AppendPart(int choice, const AnswerPart& part, const Usage& so_far,
                             std::string* out) {
  // A token without text of its own (half a character, a stop token) is no event, unless its
  // logprob is wanted.
  if (part.text.empty() && !form_.logprobs) return;
  absl::StrAppend(out, prefix_, "{\"index\":", choice,
                  IsChat(form_) ? ",\"delta\":{\"content\":" : ",\"text\":");
  AppendJsonString(part.text, out);
  if (IsChat(form_)) *out += '}';
  if (form_.logprobs) {
    *out += ",\"logprobs\":";
    if (IsChat(form_)) {
      AppendLogprobs(tokenizer_, part.tokens, out);
    } else {
      AppendOldLogprobs(tokenizer_, part.tokens, &text_offsets_[static_cast<size_t>(choice)], out);
    }
  }
  *out += ",\"finish_reason\":null}";
  CloseEvent(so_far, out);
}

void EventWriter::AppendFinish(int choice, scheduler::Finish finish, const Usage& so_far,
                               std::string* out) {
  absl::StrAppend(out, prefix_, "{\"index\":", choice,
                  IsChat(form_) ? ",\"delta\":{}" : ",\"text\":\"\"", ",\"finish_reason\":\"",
                  FinishName(finish), "\"}");
  CloseEvent(so_far, out);
}

void EventWriter::AppendDone(const Usage& all, std::string* out) {
  if (form_.include_usage) {
    absl::StrAppend(out, prefix_, "],\"usage\":");
    AppendUsage(all, out);
    *out += "}\n\n";
  }
  *out += "data: [DONE]\n\n";
}

void EventWriter::AppendError(const absl::Status& status, std::string* out) {
  absl::StrAppend(out, "data: ", ErrorJson(status, form_.request_id), "\n\n");
}

std::string CompletionJson(const models::Tokenizer& tokenizer, const AnswerForm& form,
                           absl::Span<const WholeAnswer> answers, const Usage& all) {
  std::string out = Prefix(form, IsChat(form) ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < answers.size(); ++i) {
    const WholeAnswer& answer = answers[i];
    absl::StrAppend(
        &out, i == 0 ? "" : ",", "{\"index\":", i,
        IsChat(form) ? ",\"message\":{\"role\":\"assistant\",\"content\":" : ",\"text\":");
    AppendJsonString(answer.part.text, &out);
    if (IsChat(form)) out += ",\"refusal\":null}";
    out += ",\"logprobs\":";
    int64_t offset = 0;
    if (!form.logprobs) {
      out += "null";
    } else if (IsChat(form)) {
      AppendLogprobs(tokenizer, answer.part.tokens, &out);
    } else {
      AppendOldLogprobs(tokenizer, answer.part.tokens, &offset, &out);
    }
    absl::StrAppend(&out, ",\"finish_reason\":\"", FinishName(answer.finish), "\"}");
  }
  out += "],\"usage\":";
  AppendUsage(all, &out);
  out += '}';
  return out;
}

}  // namespace triptych::services
