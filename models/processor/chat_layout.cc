#include "models/processor/chat_layout.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::models {
namespace {

constexpr char kDefaultSystem[] = "You are a helpful assistant.";

absl::string_view NameOf(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
  }
  return "";
}

// Collects text between control tokens, so that it is tokenised in one piece, as the reference
// does.
class SegmentWriter {
 public:
  SegmentWriter(const Tokenizer& tokenizer, size_t max_text_tokens)
      : tokenizer_(tokenizer), tokens_left_(max_text_tokens) {}

  void Text(absl::string_view text) { text_.append(text.data(), text.size()); }

  void Control(int32_t id) {
    FlushText();
    run_.ids.push_back(id);
  }

  void Item(const scheduler::Item& item) {
    FlushRun();
    segments_.emplace_back(item);
  }

  absl::StatusOr<std::vector<scheduler::Segment>> Finish() {
    FlushRun();
    if (too_long_) return absl::OutOfRangeError("more text than asked for");
    return std::move(segments_);
  }

 private:
  void FlushText() {
    std::vector<int32_t> ids;
    too_long_ = too_long_ || !tokenizer_.EncodeAtMost(text_, tokens_left_, &ids);
    text_.clear();
    if (too_long_) return;
    tokens_left_ -= ids.size();
    run_.ids.insert(run_.ids.end(), ids.begin(), ids.end());
  }
  void FlushRun() {
    FlushText();
    if (!run_.ids.empty()) segments_.emplace_back(std::move(run_));
    run_.ids.clear();
  }

  const Tokenizer& tokenizer_;
  size_t tokens_left_;
  bool too_long_ = false;
  std::string text_;
  scheduler::TokenRun run_;
  std::vector<scheduler::Segment> segments_;
};

absl::StatusOr<int32_t> Control(const Tokenizer& tokenizer, absl::string_view word) {
  const std::optional<int32_t> id = tokenizer.ControlId(word);
  if (id.has_value()) return *id;
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer has no ", word));
}

}  // namespace

ChatLayout::ChatLayout(const Tokenizer& tokenizer, const ModelConfig& config)
    : tokenizer_(&tokenizer),
      vision_start_(config.vision_start_token_id),
      vision_end_(config.vision_end_token_id) {}

absl::StatusOr<ChatLayout> ChatLayout::Create(const Tokenizer& tokenizer,
                                              const ModelConfig& config) {
  ChatLayout layout(tokenizer, config);
  ASSIGN_OR_RETURN(layout.message_start_, Control(tokenizer, "<|im_start|>"));
  ASSIGN_OR_RETURN(layout.message_end_, Control(tokenizer, "<|im_end|>"));
  const std::pair<absl::string_view, int32_t> vision_words[] = {
      {"<|vision_start|>", config.vision_start_token_id},
      {"<|vision_end|>", config.vision_end_token_id},
      {"<|image_pad|>", config.image_token_id},
      {"<|video_pad|>", config.video_token_id}};
  for (const auto& [word, expected] : vision_words) {
    ASSIGN_OR_RETURN(const int32_t id, Control(tokenizer, word));
    if (id != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat(word, " is ", id, " in the tokenizer and ", expected, " in config.json"));
    }
  }
  return layout;
}

absl::StatusOr<std::vector<scheduler::Segment>> ChatLayout::Segments(
    absl::Span<const Message> messages, size_t max_text_tokens) const {
  if (messages.empty()) return absl::InvalidArgumentError("no messages");
  SegmentWriter writer(*tokenizer_, max_text_tokens);
  const auto begin_message = [&](Role role) {
    writer.Control(message_start_);
    writer.Text(NameOf(role));
    writer.Text("\n");
  };
  const auto end_message = [&] {
    writer.Control(message_end_);
    writer.Text("\n");
  };
  if (messages[0].role != Role::kSystem) {
    begin_message(Role::kSystem);
    writer.Text(kDefaultSystem);
    end_message();
  }
  for (const Message& message : messages) {
    begin_message(message.role);
    for (const MessagePart& part : message.parts) {
      if (const auto* text = std::get_if<std::string>(&part)) {
        writer.Text(*text);
        continue;
      }
      writer.Control(vision_start_);
      writer.Item(std::get<scheduler::Item>(part));
      writer.Control(vision_end_);
    }
    end_message();
  }
  begin_message(Role::kAssistant);
  return writer.Finish();
}

scheduler::LayoutRules LayoutRulesOf(const ModelConfig& config, int32_t block_tokens,
                                     std::string prefix_salt) {
  return {.merge_size = config.vision.merge_size,
          .tokens_per_second = config.vision.tokens_per_second,
          .image_token_id = config.image_token_id,
          .video_token_id = config.video_token_id,
          .vocab_size = config.vocab_size,
          .block_tokens = block_tokens,
          .max_prompt_tokens = config.max_position_embeddings,
          .prefix_salt = std::move(prefix_salt)};
}

}  // namespace triptych::models
