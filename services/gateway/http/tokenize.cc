#include "services/gateway/http/tokenize.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "models/tokenizer/detokenizer.h"
#include "services/gateway/http/answer_json.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/json.h"
#include "services/gateway/request/json_members.h"
#include "services/gateway/request/openai_request.h"

namespace triptych::services {
namespace {

std::vector<int32_t> Flattened(const std::vector<scheduler::Segment>& segments,
                               const models::ModelConfig& config) {
  std::vector<int32_t> ids;
  for (const scheduler::Segment& segment : segments) {
    if (const auto* run = std::get_if<scheduler::TokenRun>(&segment)) {
      ids.insert(ids.end(), run->ids.begin(), run->ids.end());
      continue;
    }
    const auto& item = std::get<scheduler::Item>(segment);
    const bool image = item.kind == scheduler::ItemKind::kImage;
    ids.insert(ids.end(), static_cast<size_t>(item.max_tokens),
               image ? config.image_token_id : config.video_token_id);
  }
  return ids;
}

}  // namespace

absl::StatusOr<std::string> TokenizeJson(const Intake& intake, absl::string_view body,
                                         PayloadBudget::Reservation* reservation) {
  bool chat = false;
  {
    ASSIGN_OR_RETURN(const JsonValue root, ParseJson(body));
    chat = root.Find("messages") != nullptr;
  }
  ASSIGN_OR_RETURN(OpenAiRequest request,
                   ParseOpenAiRequest(body, chat ? Endpoint::kChat : Endpoint::kCompletions));
  if (request.prompts.size() > 1) {
    return At("prompt", Refuse("invalid_request", "one prompt is tokenized at a time"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ParsedRequest> parsed,
                   intake.Parse(std::move(request.prompts[0]), std::move(*reservation)));
  const ServedModel& model = intake.model();
  const std::vector<int32_t> ids = Flattened(parsed->input.segments, model.config());
  return absl::StrCat("{\"count\":", ids.size(), ",\"max_model_len\":", model.context_tokens(),
                      ",\"tokens\":[", absl::StrJoin(ids, ","), "],\"token_strs\":null}");
}

absl::StatusOr<std::string> DetokenizeJson(const Intake& intake, absl::string_view body) {
  ASSIGN_OR_RETURN(JsonValue root, ParseJson(body));
  if (root.As<JsonObject>() == nullptr) {
    return Refuse("invalid_request", absl::StrCat("the body is an object, not ", NameOfType(root)));
  }
  const Members members(root);
  std::string name;
  RETURN_IF_ERROR(members.Read("model", &name));
  const ServedModel& model = intake.model();
  if (!name.empty() && !model.IsNamed(name)) return At("model", Refuse("model_not_found"));
  std::vector<int64_t> ids;
  if (members.Find("tokens") == nullptr) return Missing("tokens");
  RETURN_IF_ERROR(members.ReadList("tokens", &ids));
  models::Detokenizer text(model.tokenizer(), models::Detokenizer::Controls::kWritten);
  std::string prompt;
  for (const int64_t id : ids) {
    if (id < 0 || id >= model.config().vocab_size) {
      return At("tokens", Refuse("invalid_request", absl::StrCat(id, " is no token id")));
    }
    prompt += text.Push(static_cast<int32_t>(id));
  }
  prompt += text.Finish();
  std::string json = "{\"prompt\":";
  AppendJsonString(prompt, &json);
  json += '}';
  return json;
}

}  // namespace triptych::services
