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

namespace triptych::services {
namespace {

constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
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

scheduler::SamplingParams SamplingOf(const ChatRequest& request) {
  scheduler::SamplingParams params;
  params.temperature = static_cast<float>(request.temperature);
  params.top_p = static_cast<float>(request.top_p);
  params.top_k = static_cast<int32_t>(request.top_k);
  params.seed = request.seed.value_or(0);
  params.top_logprobs = static_cast<int32_t>(request.top_logprobs);
  return params;
}

}  // namespace

absl::Status Intake::CheckNumbers(const ChatRequest& request) const {
  if (request.choices != 1) return Invalid("n must be 1");
  if (!InRange(request.temperature, 0, 100)) return Invalid("temperature is between 0 and 100");
  if (!InRange(request.top_p, 0, 1) || static_cast<float>(request.top_p) <= 0) {
    return Invalid("top_p is above 0 and at most 1");
  }
  if (request.top_k < 0 || request.top_k > INT32_MAX) return Invalid("top_k is at least 0");
  if (request.top_logprobs < -1 || request.top_logprobs > 20) {
    return Invalid("top_logprobs is between 0 and 20");
  }
  if (request.max_tokens &&
      (*request.max_tokens < 1 || *request.max_tokens > limits_.max_output_tokens)) {
    return Invalid(absl::StrCat("max_tokens is between 1 and ", limits_.max_output_tokens));
  }
  if (request.timeout_ms < 0) return Invalid("timeout_ms is at least 0");
  if (request.priority < -100 || request.priority > 100) {
    return Invalid("priority is between -100 and 100");
  }
  if (request.stop.size() > kMaxStops) return Invalid("at most 16 stop strings");
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return Invalid("a stop string has between 1 and 256 bytes");
    }
  }
  if (request.client_id.size() > kMaxIdBytes || !Printable(request.client_id)) {
    return Invalid("a request id has at most 128 printable characters");
  }
  if (request.tenant.size() > kMaxIdBytes || !Printable(request.tenant)) {
    return Invalid("a tenant has at most 128 printable characters");
  }
  return absl::OkStatus();
}

absl::Status Intake::CheckMessages(const ChatRequest& request) const {
  if (request.messages.empty()) return Invalid("there are no messages");
  if (request.messages.size() > static_cast<size_t>(limits_.max_messages)) {
    return Invalid("there are too many messages");
  }
  int items = 0;
  int64_t text_bytes = 0;
  for (const ChatMessage& message : request.messages) {
    ASSIGN_OR_RETURN(const models::Role role, RoleOf(message.role));
    for (const ChatPart& part : message.parts) {
      if (const auto* text = std::get_if<std::string>(&part)) {
        text_bytes += static_cast<int64_t>(text->size());
      } else if (++items > kMaxItems) {
        return Refuse("too_many_images");
      } else if (role == models::Role::kSystem) {
        return Invalid("a system message has text only");
      }
    }
  }
  if (text_bytes > limits_.max_text_bytes) return Refuse("prompt_too_long");
  return absl::OkStatus();
}

absl::StatusOr<scheduler::Item> Intake::Measure(const std::string& tenant, ChatMedia* media,
                                                ParsedRequest* parsed, Payload* payload) const {
  if (media->frames.empty()) return Invalid("a video has no frames");
  if (media->frames.size() > kMaxVideoFrames) {
    return Refuse("too_many_images", "a video has too many frames");
  }
  const double fps = media->fps == 0 ? kDefaultFps : media->fps;
  if (!InRange(fps, 0.01, 240)) return Invalid("fps is between 0.01 and 240");
  PayloadItem item{.kind = media->kind, .frames = std::move(media->frames), .fps = fps};
  scheduler::ItemCost cost;
  int width = 0, height = 0;
  for (const std::string& frame : item.frames) {
    ASSIGN_OR_RETURN(const media::Probe probe, media::ProbeImage(frame, limits_.image));
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
  if (!tokens.ok() || *tokens > model_.context_tokens()) return Refuse("prompt_too_long");
  cost.patches = item.grid.patches();
  cost.num_tokens = *tokens;
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

absl::StatusOr<std::unique_ptr<ParsedRequest>> Intake::Parse(
    ChatRequest request, PayloadBudget::Reservation reservation) const {
  if (!request.model.empty() && request.model != model_.name()) return Refuse("model_not_found");
  RETURN_IF_ERROR(CheckNumbers(request));
  RETURN_IF_ERROR(CheckMessages(request));

  auto parsed = std::make_unique<ParsedRequest>();
  auto payload = std::make_unique<Payload>();
  scheduler::SubmitRequest& submit = parsed->submit;
  submit.tenant = request.tenant.empty() ? "default" : request.tenant;
  submit.priority = static_cast<int32_t>(request.priority);
  std::vector<models::Message> messages;
  for (ChatMessage& message : request.messages) {
    ASSIGN_OR_RETURN(models::Role role, RoleOf(message.role));
    models::Message& to = messages.emplace_back(models::Message{.role = role});
    for (ChatPart& part : message.parts) {
      if (auto* media = std::get_if<ChatMedia>(&part)) {
        ASSIGN_OR_RETURN(scheduler::Item item,
                         Measure(submit.tenant, media, parsed.get(), payload.get()));
        if (parsed->picture_tokens >= model_.context_tokens()) return Refuse("prompt_too_long");
        to.parts.emplace_back(std::move(item));
      } else {
        to.parts.emplace_back(std::move(std::get<std::string>(part)));
      }
    }
  }
  absl::StatusOr<std::vector<scheduler::Segment>> segments = model_.chat().Segments(messages);
  if (!segments.ok()) return Invalid("the messages make no prompt");
  parsed->input.segments = *std::move(segments);

  const int64_t prompt = int64_t{TextTokens(parsed->input.segments)} + parsed->picture_tokens;
  const int64_t room = model_.context_tokens() - prompt;
  if (room < 1) return Refuse("prompt_too_long");
  submit.prompt_tokens = static_cast<int32_t>(prompt);
  submit.max_tokens =
      static_cast<int32_t>(std::min(room, request.max_tokens.value_or(limits_.max_output_tokens)));
  parsed->input.max_tokens = submit.max_tokens;
  parsed->input.sampling = SamplingOf(request);
  parsed->input.stop_token_ids = model_.config().eos_token_ids;
  parsed->seed_given = request.seed.has_value();
  parsed->client_id = std::move(request.client_id);
  parsed->stop = std::move(request.stop);
  const base::Duration wanted = std::chrono::milliseconds(
      std::min<int64_t>(request.timeout_ms, std::chrono::milliseconds::max().count() / 1'000'000));
  parsed->timeout = request.timeout_ms == 0 ? limits_.max_timeout
                                            : std::min<base::Duration>(wanted, limits_.max_timeout);
  int64_t bytes = 0;
  for (const scheduler::ItemCost& item : submit.items) bytes += item.media_bytes;
  reservation.ShrinkTo(bytes);
  payload->reservation = std::move(reservation);
  parsed->payload = std::move(payload);
  return parsed;
}

}  // namespace triptych::services
