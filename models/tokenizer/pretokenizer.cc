#include "models/tokenizer/pretokenizer.h"

#include "models/tokenizer/unicode.h"

namespace triptych::models {
namespace {

constexpr int32_t kLongS = 0x17f;  // folds to s when case is ignored

bool IsSpaceOrNewline(CharClass c) { return c == CharClass::kSpace || c == CharClass::kNewline; }

bool IsOther(CharClass c) { return c == CharClass::kOther; }

int32_t FoldCase(int32_t c) {
  if (c == kLongS) return 's';
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

// First offset from `begin` whose character is not in `is_inside`.
template <typename Predicate>
size_t SkipWhile(absl::string_view text, size_t begin, Predicate is_inside) {
  size_t at = begin;
  while (at < text.size()) {
    const Character next = CharacterAt(text, at);
    if (!is_inside(next.char_class)) break;
    at = next.end;
  }
  return at;
}

// 's 't 're 've 'm 'll 'd; returns `begin` where there is none.
size_t ContractionEnd(absl::string_view text, size_t begin) {
  if (text[begin] != '\'' || begin + 1 >= text.size()) return begin;
  const Character first = CharacterAt(text, begin + 1);
  const int32_t a = FoldCase(first.code_point);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
  if (first.end >= text.size()) return begin;
  const Character second = CharacterAt(text, first.end);
  const int32_t b = FoldCase(second.code_point);
  const bool matches = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return matches ? second.end : begin;
}

// The last three alternatives: up to the last newline of a run of spaces; else the run without the
// one space that belongs to what follows.
size_t SpacesEnd(absl::string_view text, size_t begin) {
  size_t at = begin, last_begin = begin, newline_end = begin;
  while (at < text.size()) {
    const Character next = CharacterAt(text, at);
    if (!IsSpaceOrNewline(next.char_class)) break;
    if (next.char_class == CharClass::kNewline) newline_end = next.end;
    last_begin = at;
    at = next.end;
  }
  if (newline_end > begin) return newline_end;
  if (at == text.size() || last_begin == begin) return at;
  return last_begin;
}

}  // namespace

size_t PieceEnd(absl::string_view text, size_t begin) {
  const size_t contraction = ContractionEnd(text, begin);
  if (contraction > begin) return contraction;
  const auto is_letter = [](CharClass c) { return c == CharClass::kLetter; };
  const auto is_newline = [](CharClass c) { return c == CharClass::kNewline; };
  const Character first = CharacterAt(text, begin);
  if (first.char_class == CharClass::kLetter) return SkipWhile(text, first.end, is_letter);
  if (first.char_class == CharClass::kNumber) return first.end;
  if (first.char_class != CharClass::kNewline) {
    const size_t letters = SkipWhile(text, first.end, is_letter);
    if (letters > first.end) return letters;
  }
  const size_t others_begin = first.code_point == ' ' ? first.end : begin;
  const size_t others = SkipWhile(text, others_begin, IsOther);
  if (others > others_begin) return SkipWhile(text, others, is_newline);
  return SpacesEnd(text, begin);
}

}  // namespace triptych::models
