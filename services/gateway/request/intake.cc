#include "services/gateway/request/intake.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status.h"
#include "media/probe.h"
#include "scheduler/request/sip_hash.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/inline_media.h"
#include "services/gateway/request/openai_request.h"
#include "services/gateway/request/sampling.h"

namespace triptych::services {
namespace {

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxStopTokens = 64;
constexpr size_t kMaxIdBytes = 128;
constexpr double kDefaultFps = 2;

absl::Status Invalid(absl::string_view sentence) { return Refuse("invalid_request", sentence); }

bool Printable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

bool InRange(double value, double low, double high) {
  return std::isfinite(value) && value >= low && value <= high;
}

absl::StatusOr<models::Role> RoleOf(const std::string& role) {
  // Newer clients of OpenAI's say developer where older ones said system.
  if (role == "system" || role == "developer") return models::Role::kSystem;
  if (role == "user") return models::Role::kUser;
  if (role == "assistant") return models::Role::kAssistant;
  return Invalid("a role is system, developer, user or assistant");
}

// Digest of the tenant, the model's texts (which cover preprocessing), decoded size and bytes.
// Keyed by the model, so that two gateways of one model agree.
uint64_t ContentKey(const std::string& tenant, const std::string& model, const PayloadItem& item) {
  scheduler::SipHash hash(base::Checksum64(model.data(), model.size(), 1),
                          base::Checksum64(model.data(), model.size(), 2));
  const auto add = [&](absl::string_view bytes) {
    hash.Add(bytes.size());
    while (!bytes.empty()) {
      uint64_t word = 0;
      const size_t size = std::min(sizeof(word), bytes.size());
      std::memcpy(&word, bytes.data(), size);
      hash.Add(word);
      bytes.remove_prefix(size);
    }
  };
  add(tenant);
  hash.Add(static_cast<uint64_t>(item.kind));
  hash.Add(static_cast<uint64_t>(item.grid.t) << 40 | static_cast<uint64_t>(item.grid.h) << 20 |
           static_cast<uint64_t>(item.grid.w));
  for (const std::string& frame : item.frames) add(frame);
  return hash.Digest();
}

int32_t TextTokens(const std::vector<scheduler::Segment>& segments) {
  size_t count = 0;
  for (const scheduler::Segment& segment : segments) {
    if (const auto* run = std::get_if<scheduler::TokenRun>(&segment)) count += run->ids.size();
  }
  return static_cast<int32_t>(count);
}

}  // namespace

absl::Status Intake::CheckNumbers(const ChatRequest& request) const {
  if (request.choices < 1 || request.choices > kMaxChoices) {
    return At("n", Invalid(absl::StrCat("n is between 1 and ", kMaxChoices)));
  }
  if (request.timeout_ms < 0) return At("timeout_ms", Invalid("timeout_ms is at least 0"));
  if (request.priority < -100 || request.priority > 100) {
    return At("priority", Invalid("priority is between -100 and 100"));
  }
  if (request.client_id.size() > kMaxIdBytes || !Printable(request.client_id)) {
    return At("request_id", Invalid("a request id has at most 128 printable characters"));
  }
  if (request.tenant.size() > kMaxIdBytes || !Printable(request.tenant)) {
    return At("tenant", Invalid("a tenant has at most 128 printable characters"));
  }
  return CheckEnd(request);
}

absl::Status Intake::CheckEnd(const ChatRequest& request) const {
  if (request.max_tokens && *request.max_tokens < 1) {
    return At("max_tokens", Invalid("max_tokens is at least 1"));
  }
  if (request.min_tokens < 0) return At("min_tokens", Invalid("min_tokens is at least 0"));
  if (request.max_tokens && request.min_tokens > *request.max_tokens) {
    return At("min_tokens", Invalid("min_tokens is at most max_tokens"));
  }
  if (request.stop.size() > kMaxStops) {
    return At("stop", Invalid(absl::StrCat("there are at most ", kMaxStops, " stop strings")));
  }
  for (const std::string& stop : request.stop) {
    if (!stop.empty() && stop.size() <= kMaxStopBytes) continue;
    return At("stop",
              Invalid(absl::StrCat("a stop string has between 1 and ", kMaxStopBytes, " bytes")));
  }
  if (request.stop_token_ids.size() > kMaxStopTokens) {
    return At("stop_token_ids",
              Invalid(absl::StrCat("there are at most ", kMaxStopTokens, " stop tokens")));
  }
  for (const int64_t id : request.stop_token_ids) {
    if (id < 0 || id >= model_.config().vocab_size) {
      return At("stop_token_ids", Invalid(absl::StrCat("a token id is between 0 and ",
                                                       model_.config().vocab_size - 1)));
    }
  }
  return absl::OkStatus();
}

absl::Status Intake::CheckMessages(const ChatRequest& request) const {
  if (request.messages.empty()) return At("messages", Invalid("there are no messages"));
  if (request.messages.size() > static_cast<size_t>(limits_.max_messages)) {
    return At("messages",
              Invalid(absl::StrCat("there are ", request.messages.size(), " messages, at most ",
                                   limits_.max_messages, " are taken")));
  }
  int items = 0;
  int64_t text_bytes = 0;
  for (size_t i = 0; i < request.messages.size(); ++i) {
    const ChatMessage& message = request.messages[i];
    const absl::StatusOr<models::Role> role = RoleOf(message.role);
    if (!role.ok()) return At(absl::StrCat("messages[", i, "].role"), role.status());
    for (const ChatPart& part : message.parts) {
      if (const auto* text = std::get_if<std::string>(&part)) {
        text_bytes += static_cast<int64_t>(text->size());
      } else if (++items > kMaxItems) {
        return TooManyItems();
      } else if (*role == models::Role::kSystem) {
        return At(absl::StrCat("messages[", i, "]"), Invalid("a system message has text only"));
      }
    }
  }
  return CheckTextBytes(text_bytes);
}

absl::Status Intake::CheckTextBytes(int64_t bytes) const {
  const auto context = static_cast<size_t>(model_.context_tokens());
  const auto fits = static_cast<int64_t>(model_.tokenizer().MostBytesOf(context));
  const int64_t most = std::min(limits_.max_text_bytes, fits);
  if (bytes <= most) return absl::OkStatus();
  return Refuse("prompt_too_long", absl::StrCat("the prompt has ", bytes,
                                                " bytes of text, at most ", most, " are read"));
}

absl::Status Intake::TooMuchText() const {
  return Refuse("prompt_too_long",
                absl::StrCat("the prompt has more text than the context of ",
                             model_.context_tokens(), " tokens holds, or a word of more than ",
                             models::Tokenizer::kMaxWordBytes, " bytes"));
}

absl::Status Intake::TooLong(int64_t prompt_tokens) const {
  return Refuse("prompt_too_long",
                absl::StrCat("the prompt has ", prompt_tokens, " tokens; the context of ",
                             model_.context_tokens(), " holds it and at least one of the answer"));
}

// The refusal of a picture, with the limits that it met.
absl::Status Intake::Explain(const absl::Status& refusal) const {
  if (refusal.message() != media::kImageTooLarge) return refusal;
  const media::Limits& image = limits_.image;
  return Refuse("image_too_large",
                absl::StrCat("a picture has at most ", image.max_bytes, " bytes, ", image.max_side,
                             " pixels a side and ", image.max_pixels,
                             " in all, or as a baseline JPEG or a PNG without interlace ",
                             image.max_stored_pixels));
}

absl::StatusOr<scheduler::Item> Intake::Measure(const std::string& tenant, ChatMedia* media,
                                                ParsedRequest* parsed, Payload* payload) const {
  if (media->frames.empty()) return Invalid("a video has no frames");
  if (media->frames.size() > kMaxVideoFrames) {
    return TooManyFrames();
  }
  const double fps = media->fps == 0 ? kDefaultFps : media->fps;
  if (!InRange(fps, 0.01, 240)) return Invalid("fps is between 0.01 and 240");
  PayloadItem item{.kind = media->kind, .frames = std::move(media->frames), .fps = fps};
  scheduler::ItemCost cost;
  int width = 0, height = 0;
  for (const std::string& frame : item.frames) {
    const absl::StatusOr<media::Probe> measured = media::ProbeImage(frame, limits_.image);
    if (!measured.ok()) return Explain(measured.status());
    const media::Probe& probe = *measured;
    if (width == 0) width = probe.width, height = probe.height;
    if (probe.width != width || probe.height != height) {
      return Invalid("the frames of a video have one size");
    }
    cost.media_bytes += static_cast<int64_t>(frame.size());
    cost.pixels += media::DecodeCost(probe);
  }
  const bool video = item.kind == scheduler::ItemKind::kVideo;
  const models::ImageProcessor& processor = model_.processor();
  const absl::StatusOr<scheduler::Grid> grid =
      video ? processor.VideoGridOf(width, height, static_cast<int>(item.frames.size()))
            : processor.GridOf(width, height);
  if (!grid.ok()) return Refuse("image_malformed", "a picture is too narrow");
  item.grid = *grid;
  absl::StatusOr<int32_t> tokens =
      scheduler::ItemTokens(item.grid, model_.config().vision.merge_size);
  if (!tokens.ok() || *tokens > model_.context_tokens()) {
    return TooLong(int64_t{parsed->picture_tokens} + tokens.value_or(INT32_MAX));
  }
  cost.patches = item.grid.patches();
  cost.num_tokens = *tokens;
  item.tenant = base::Checksum64(tenant.data(), tenant.size(), 1);
  cost.content_key = ContentKey(tenant, model_.digest(), item);
  parsed->picture_tokens += *tokens;
  parsed->submit.items.push_back(cost);
  payload->items.push_back(std::move(item));
  return scheduler::Item{.kind = media->kind,
                         .grid = *grid,
                         .second_per_grid = video ? processor.SecondsPerGrid(fps) : 0,
                         .content_key = cost.content_key,
                         .max_tokens = *tokens};
}

absl::Status Intake::LayOutChat(ChatRequest* request, ParsedRequest* parsed,
                                Payload* payload) const {
  RETURN_IF_ERROR(CheckMessages(*request));
  std::vector<models::Message> messages;
  for (size_t i = 0; i < request->messages.size(); ++i) {
    ChatMessage& message = request->messages[i];
    ASSIGN_OR_RETURN(models::Role role, RoleOf(message.role));
    models::Message& to = messages.emplace_back(models::Message{.role = role});
    for (size_t k = 0; k < message.parts.size(); ++k) {
      auto* media = std::get_if<ChatMedia>(&message.parts[k]);
      if (media == nullptr) {
        to.parts.emplace_back(std::move(std::get<std::string>(message.parts[k])));
        continue;
      }
      absl::StatusOr<scheduler::Item> item = Measure(parsed->submit.tenant, media, parsed, payload);
      if (!item.ok()) return At(absl::StrCat("messages[", i, "].content[", k, "]"), item.status());
      if (parsed->picture_tokens >= model_.context_tokens()) {
        return TooLong(parsed->picture_tokens);
      }
      to.parts.emplace_back(*std::move(item));
    }
  }
  absl::StatusOr<std::vector<scheduler::Segment>> segments =
      model_.chat().Segments(messages, static_cast<size_t>(model_.context_tokens()));
  if (absl::IsOutOfRange(segments.status())) return TooMuchText();
  if (!segments.ok()) return Invalid("the messages make no prompt");
  parsed->input.segments = *std::move(segments);
  return absl::OkStatus();
}

absl::Status Intake::LayOutPrompt(const RawPrompt& prompt, ParsedRequest* parsed) const {
  scheduler::TokenRun run;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    RETURN_IF_ERROR(CheckTextBytes(static_cast<int64_t>(text->size())));
    const auto context = static_cast<size_t>(model_.context_tokens());
    if (!model_.tokenizer().EncodeAtMost(*text, context, &run.ids)) return TooMuchText();
  } else {
    const models::ModelConfig& config = model_.config();
    for (const int64_t id : std::get<std::vector<int64_t>>(prompt)) {
      // A placeholder stands for what no picture of this prompt could fill.
      if (id < 0 || id >= config.vocab_size || id == config.image_token_id ||
          id == config.video_token_id) {
        return At("prompt", Invalid(absl::StrCat(id, " is no token id of a text")));
      }
      run.ids.push_back(static_cast<int32_t>(id));
    }
  }
  if (run.ids.empty()) return At("prompt", Invalid("the prompt is empty"));
  parsed->input.segments.emplace_back(std::move(run));
  return absl::OkStatus();
}

absl::Status Intake::SetEnd(ChatRequest* request, ParsedRequest* parsed) const {
  const int64_t prompt = int64_t{TextTokens(parsed->input.segments)} + parsed->picture_tokens;
  const int64_t room = model_.context_tokens() - prompt;
  if (room < 1) return TooLong(prompt);
  const int64_t longest = std::min<int64_t>(room, max_output_tokens());
  const auto cut = [&](int64_t wanted) { return static_cast<int32_t>(std::min(longest, wanted)); };
  scheduler::PulledInput& input = parsed->input;
  parsed->submit.prompt_tokens = static_cast<int32_t>(prompt);
  parsed->submit.open_ended = !request->max_tokens.has_value();
  parsed->submit.max_tokens = input.max_tokens = cut(request->max_tokens.value_or(longest));
  input.min_tokens = std::min(cut(request->min_tokens), input.max_tokens);
  for (const int64_t id : request->stop_token_ids) {
    input.stop_token_ids.push_back(static_cast<int32_t>(id));
  }
  if (!request->ignore_eos) {
    const std::vector<int32_t>& ends = model_.config().eos_token_ids;
    input.stop_token_ids.insert(input.stop_token_ids.end(), ends.begin(), ends.end());
  }
  parsed->answer = {.stop = std::move(request->stop),
                    .include_stop = request->include_stop,
                    .skip_special_tokens = request->skip_special_tokens,
                    .min_tokens = input.min_tokens};
  return absl::OkStatus();
}

base::Duration Intake::TimeoutOf(const ChatRequest& request) const {
  if (request.timeout_ms == 0) return limits_.max_timeout;
  constexpr int64_t kLongest = std::chrono::milliseconds::max().count() / 1'000'000;
  const base::Duration wanted =
      std::chrono::milliseconds(std::min<int64_t>(request.timeout_ms, kLongest));
  return std::min(wanted, limits_.max_timeout);
}

absl::StatusOr<std::unique_ptr<ParsedRequest>> Intake::Parse(ChatRequest request,
                                                             PayloadBudget::Reservation reservation,
                                                             const Client* client) const {
  if (!request.model.empty() && !model_.IsNamed(request.model)) {
    return At("model", Refuse("model_not_found"));
  }
  RETURN_IF_ERROR(CheckNumbers(request));
  if (client != nullptr) Introduce(*client, &request);
  auto parsed = std::make_unique<ParsedRequest>();
  RETURN_IF_ERROR(SetSampling(request, model_, &parsed->input));
  auto payload = std::make_unique<Payload>();
  scheduler::SubmitRequest& submit = parsed->submit;
  submit.tenant = request.tenant.empty() ? "default" : request.tenant;
  submit.priority = static_cast<int32_t>(request.priority);
  if (request.prompt) {
    RETURN_IF_ERROR(LayOutPrompt(*request.prompt, parsed.get()));
  } else {
    RETURN_IF_ERROR(LayOutChat(&request, parsed.get(), payload.get()));
  }
  RETURN_IF_ERROR(SetEnd(&request, parsed.get()));
  parsed->seed_given = request.seed.has_value();
  parsed->client_id = std::move(request.client_id);
  parsed->tag = std::move(request.tag);
  parsed->timeout = TimeoutOf(request);
  int64_t bytes = 0;
  for (const scheduler::ItemCost& item : submit.items) bytes += item.media_bytes;
  reservation.ShrinkTo(bytes);
  payload->reservation = std::move(reservation);
  parsed->payload = std::move(payload);
  return parsed;
}

}  // namespace triptych::services
