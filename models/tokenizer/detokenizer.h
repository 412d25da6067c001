#pragma once

// Token ids to text, one token at a time.

#include <cstdint>
#include <string>

#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/utf8_stream.h"

namespace triptych::models {

// The text of one answer. Never emits half a character: bytes of an unfinished one wait for the
// next token, bytes that cannot become one come out as U+FFFD. Memory: three bytes. One thread;
// borrows the tokenizer.
class Detokenizer {
 public:
  enum class Controls { kSilent, kWritten };
  explicit Detokenizer(const Tokenizer& tokenizer, Controls controls = Controls::kSilent)
      : tokenizer_(&tokenizer), controls_(controls) {}

  // The text that is certain after token `id`; often empty, never half a character.
  std::string Push(int32_t id) {
    const absl::string_view bytes = tokenizer_->TokenBytes(id);
    const bool control = bytes.empty() && controls_ == Controls::kWritten;
    return stream_.Push(control ? tokenizer_->ControlText(id) : bytes);
  }
  // What is left when no token follows.
  std::string Finish() { return stream_.Finish(); }

 private:
  const Tokenizer* tokenizer_;
  Controls controls_;
  Utf8Stream stream_;
};

}  // namespace triptych::models
