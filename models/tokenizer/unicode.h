#pragma once

// The little that the tokenizer needs of Unicode. All functions take time linear in the text, or
// n log n for one run of combining marks; a hostile text costs no more than a plain one.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace triptych::models {

// What the pre-tokenisation pattern tells apart.
enum class CharClass : uint8_t { kLetter, kNumber, kNewline, kSpace, kOther };

// One character of a text and where the next begins.
struct Character {
  int32_t code_point = -1;
  CharClass char_class = CharClass::kOther;
  size_t end = 0;  // byte offset
};

// The character at byte `offset` of valid UTF-8. `offset` is below text.size().
Character CharacterAt(absl::string_view text, size_t offset);

// Appends `code_point` as UTF-8.
void AppendUtf8(int32_t code_point, std::string* text);

// A valid copy: each maximal invalid part becomes U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

// Normalisation form C (Unicode Standard Annex 15) of valid UTF-8.
std::string NormalizeNfc(absl::string_view text);

}  // namespace triptych::models
