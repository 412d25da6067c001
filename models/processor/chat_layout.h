#pragma once

// A conversation to the segments of a prompt: Qwen2.5-VL's chat template, written out.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/config/model_config.h"
#include "models/tokenizer/tokenizer.h"
#include "scheduler/request/layout.h"

namespace triptych::models {

enum class Role : uint8_t { kSystem, kUser, kAssistant };

// A message is a sequence of texts and items (pictures, videos) in the order the user gave.
using MessagePart = std::variant<std::string, scheduler::Item>;

struct Message {
  Role role = Role::kUser;
  std::vector<MessagePart> parts;
};

// Immutable; borrows the tokenizer. Any thread.
class ChatLayout {
 public:
  // INVALID_ARGUMENT when the tokenizer lacks a control word of the template, or has another id for
  // a vision word than the config.
  static absl::StatusOr<ChatLayout> Create(const Tokenizer& tokenizer, const ModelConfig& config);

  // The prompt that asks for the assistant's next message. Without a system message at the start
  // the template's own is added. Control words in texts stay plain text. INVALID_ARGUMENT for no
  // messages; OUT_OF_RANGE, soon, when their texts have more than `max_text_tokens` or a word that
  // is none, see Tokenizer::EncodeAtMost.
  absl::StatusOr<std::vector<scheduler::Segment>> Segments(absl::Span<const Message> messages,
                                                           size_t max_text_tokens = SIZE_MAX) const;

 private:
  ChatLayout(const Tokenizer& tokenizer, const ModelConfig& config);

  const Tokenizer* tokenizer_;
  int32_t message_start_ = 0, message_end_ = 0;
  int32_t vision_start_ = 0, vision_end_ = 0;
};

// The rules under which this model's prompts are laid out. `max_prompt_tokens` is the model's
// limit; a server may lower it. `prefix_salt`: see LayoutRules.
scheduler::LayoutRules LayoutRulesOf(const ModelConfig& config, int32_t block_tokens,
                                     std::string prefix_salt);

}  // namespace triptych::models
