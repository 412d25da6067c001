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
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // The text that is certain after token `id`; often empty, never half a character.
  std::string Push(int32_t id) { return stream_.Push(tokenizer_->TokenBytes(id)); }
  // What is left when no token follows.
  std::string Finish() { return stream_.Finish(); }

 private:
  const Tokenizer* tokenizer_;
  Utf8Stream stream_;
};

}  // namespace triptych::models
