#pragma once

// Cuts a text into the pieces inside which byte pairs may merge: the pre-tokenisation pattern of
// Qwen2's tokenizer, scanned by hand.

#include <cstddef>

#include "absl/strings/string_view.h"

namespace triptych::models {

// The pattern, as published. LoadTokenizer refuses a tokenizer with another one.
inline constexpr char kPretokenizerPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// End (byte offset) of the piece that begins at `begin`, below text.size(); the pieces cover the
// text. `text` is valid UTF-8. A walk over the whole text takes linear time.
size_t PieceEnd(absl::string_view text, size_t begin);

}  // namespace triptych::models
