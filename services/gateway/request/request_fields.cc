#include "services/gateway/request/request_fields.h"

#include <algorithm>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

constexpr Treatment kRefused = Treatment::kRefused;
constexpr Treatment kHarmless = Treatment::kHarmless;

constexpr RequestField Refused(const char* name, Neutral neutral = Neutral::kEmpty,
                               const char* why = "") {
  return {.name = name, .treatment = kRefused, .neutral = neutral, .why = why};
}
constexpr RequestField RefusedBut(const char* name, const char* named, const char* why = "") {
  return {name, kRefused, Neutral::kNamed, named, why};
}
constexpr RequestField Harmless(const char* name) { return {.name = name, .treatment = kHarmless}; }

constexpr char kNoTools[] = "tools are not offered";
constexpr char kNoGuide[] = "answers of a given form are not offered";
constexpr char kOwnTemplate[] = "prompts are laid out by the model's own template";
constexpr char kNoBeams[] = "there is no beam search";
constexpr char kNoAudio[] = "text is the only output";
constexpr char kNoSampler[] = "this way of sampling is not offered";

constexpr RequestField kFields[] = {
    // What is read.
    {.name = "messages"},
    {.name = "prompt"},
    {.name = "model"},
    {.name = "stream"},
    {.name = "stream_options"},
    {.name = "temperature"},
    {.name = "top_p"},
    {.name = "top_k"},
    {.name = "min_p"},
    {.name = "repetition_penalty"},
    {.name = "presence_penalty"},
    {.name = "frequency_penalty"},
    {.name = "logit_bias"},
    {.name = "bad_words"},
    {.name = "seed"},
    {.name = "n"},
    {.name = "max_tokens"},
    {.name = "max_completion_tokens"},
    {.name = "min_tokens"},
    {.name = "ignore_eos"},
    {.name = "stop"},
    {.name = "stop_token_ids"},
    {.name = "include_stop_str_in_output"},
    {.name = "skip_special_tokens"},
    {.name = "logprobs"},
    {.name = "top_logprobs"},
    {.name = "response_format"},
    {.name = "timeout_ms"},
    {.name = "priority"},
    // What would change the answer and is not offered: OpenAI's.
    Refused("tools", Neutral::kEmpty, kNoTools),
    RefusedBut("tool_choice", "|none|auto|", kNoTools),
    Refused("functions", Neutral::kEmpty, kNoTools),
    RefusedBut("function_call", "|none|auto|", kNoTools),
    Refused("audio", Neutral::kEmpty, kNoAudio),
    RefusedBut("modalities", "|text|", kNoAudio),
    Refused("prediction"),
    Refused("web_search_options"),
    RefusedBut("verbosity", "|medium|"),
    Refused("suffix"),
    Refused("echo", Neutral::kFalse),
    Refused("best_of", Neutral::kOne, kNoBeams),
    // vLLM's and SGLang's.
    Refused("use_beam_search", Neutral::kFalse, kNoBeams),
    Refused("length_penalty", Neutral::kOne, kNoBeams),
    Refused("early_stopping", Neutral::kFalse, kNoBeams),
    Refused("allowed_token_ids"),
    Refused("structured_outputs", Neutral::kEmpty, kNoGuide),
    Refused("structural_tag", Neutral::kEmpty, kNoGuide),
    Refused("guided_json", Neutral::kEmpty, kNoGuide),
    Refused("guided_regex", Neutral::kEmpty, kNoGuide),
    Refused("guided_choice", Neutral::kEmpty, kNoGuide),
    Refused("guided_grammar", Neutral::kEmpty, kNoGuide),
    Refused("guided_whitespace_pattern", Neutral::kEmpty, kNoGuide),
    Refused("regex", Neutral::kEmpty, kNoGuide),
    Refused("ebnf", Neutral::kEmpty, kNoGuide),
    Refused("json_schema", Neutral::kEmpty, kNoGuide),
    Refused("grammar", Neutral::kEmpty, kNoGuide),
    Refused("add_generation_prompt", Neutral::kTrue, kOwnTemplate),
    Refused("continue_final_message", Neutral::kFalse, kOwnTemplate),
    Refused("continue_assistant_turn", Neutral::kFalse, kOwnTemplate),
    Refused("chat_template", Neutral::kEmpty, kOwnTemplate),
    Refused("chat_template_kwargs", Neutral::kEmpty, kOwnTemplate),
    Refused("documents", Neutral::kEmpty, kOwnTemplate),
    Refused("mm_processor_kwargs", Neutral::kEmpty, "pictures are sized by the model's own rule"),
    Refused("media_io_kwargs", Neutral::kEmpty, "pictures are read by one rule"),
    Refused("truncate_prompt_tokens", Neutral::kMinusOne, "prompts are never cut"),
    Refused("prompt_logprobs", Neutral::kFalse, "log probabilities are those of the answer"),
    Refused("prompt_embeds"),
    Refused("allowed_local_media_path"),
    Refused("spaces_between_special_tokens", Neutral::kTrue),
    Refused("logits_processors", Neutral::kEmpty, kNoSampler),
    Refused("custom_logit_processor", Neutral::kEmpty, kNoSampler),
    Refused("custom_params", Neutral::kEmpty, kNoSampler),
    Refused("vllm_xargs", Neutral::kEmpty, kNoSampler),
    Refused("kv_transfer_params", Neutral::kEmpty, "where KV goes is the scheduler's affair"),
    Refused("lora_path", Neutral::kEmpty, "there are no adapters"),
    Refused("session_params", Neutral::kEmpty, "there are no sessions"),
    Refused("no_stop_trim", Neutral::kFalse, "say include_stop_str_in_output"),
    Refused("stop_regex"),
    Refused("min_new_tokens", Neutral::kZero, "say min_tokens"),
    Refused("max_new_tokens", Neutral::kEmpty, "say max_tokens"),
    Refused("return_hidden_states", Neutral::kFalse),
    Refused("return_token_ids", Neutral::kFalse),
    Refused("return_tokens_as_token_ids", Neutral::kFalse),
    Refused("thinking_token_budget", Neutral::kEmpty, "the model does not reason"),
    // llama.cpp's.
    Refused("n_predict", Neutral::kMinusOne, "say max_tokens"),
    Refused("repeat_penalty", Neutral::kOne, "say repetition_penalty"),
    Refused("typical_p", Neutral::kOne, kNoSampler),
    Refused("mirostat", Neutral::kZero, kNoSampler),
    Refused("dynatemp_range", Neutral::kZero, kNoSampler),
    Refused("xtc_probability", Neutral::kZero, kNoSampler),
    Refused("dry_multiplier", Neutral::kZero, kNoSampler),
    Refused("samplers", Neutral::kEmpty, kNoSampler),
    // What no answer depends on.
    Harmless("add_special_tokens"),
    Harmless("user"),
    Harmless("metadata"),
    Harmless("store"),
    Harmless("service_tier"),
    Harmless("safety_identifier"),
    Harmless("prompt_cache_key"),
    Harmless("prompt_cache_retention"),
    Harmless("parallel_tool_calls"),
    Harmless("reasoning_effort"),
    Harmless("include_reasoning"),
    Harmless("separate_reasoning"),
    Harmless("stream_reasoning"),
    Harmless("guided_decoding_backend"),
    Harmless("cache_salt"),
    Harmless("cache_prompt"),
    Harmless("request_id"),
    Harmless("rid"),
    Harmless("data_parallel_rank"),
    Harmless("id_slot"),
    Harmless("chat_template_content_format"),
};

bool IsNumber(const JsonValue& value, double number) {
  if (const auto* integer = value.As<int64_t>()) return static_cast<double>(*integer) == number;
  const auto* real = value.As<double>();
  return real != nullptr && *real == number;
}

bool IsEmpty(const JsonValue& value) {
  if (value.is_null()) return true;
  if (const auto* text = value.As<std::string>()) return text->empty();
  if (const auto* list = value.As<JsonArray>()) return list->empty();
  const auto* object = value.As<JsonObject>();
  return object != nullptr && object->empty();
}

bool IsNamed(const JsonValue& value, absl::string_view names) {
  if (const auto* list = value.As<JsonArray>()) {
    return std::all_of(list->begin(), list->end(),
                       [&](const JsonValue& entry) { return IsNamed(entry, names); });
  }
  const auto* text = value.As<std::string>();
  return text != nullptr && text->find('|') == std::string::npos &&
         names.find(absl::StrCat("|", *text, "|")) != absl::string_view::npos;
}

bool AsksForNothing(const RequestField& field, const JsonValue& value) {
  if (IsEmpty(value)) return true;
  const auto* flag = value.As<bool>();
  switch (field.neutral) {
    case Neutral::kEmpty:
      return false;
    case Neutral::kFalse:
      return flag != nullptr && !*flag;
    case Neutral::kTrue:
      return flag != nullptr && *flag;
    case Neutral::kZero:
      return IsNumber(value, 0);
    case Neutral::kOne:
      return IsNumber(value, 1);
    case Neutral::kMinusOne:
      return IsNumber(value, -1);
    case Neutral::kNamed:
      return IsNamed(value, field.named);
  }
  return false;
}

}  // namespace

absl::Span<const RequestField> RequestFields() { return kFields; }

const RequestField* FindRequestField(absl::string_view name) {
  static const auto* const index = [] {
    auto* made = new absl::flat_hash_map<absl::string_view, const RequestField*>();
    for (const RequestField& field : kFields) CHECK_TRUE(made->emplace(field.name, &field).second);
    return made;
  }();
  const auto found = index->find(name);
  return found == index->end() ? nullptr : found->second;
}

absl::Status CheckRequestField(const RequestField& field, const JsonValue& value) {
  if (field.treatment != Treatment::kRefused || AsksForNothing(field, value)) {
    return absl::OkStatus();
  }
  const absl::string_view why = field.why;
  return At(field.name, Refuse("invalid_request", absl::StrCat(field.name, " is not offered",
                                                               why.empty() ? "" : ": ", why)));
}

}  // namespace triptych::services
