#include "models/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "models/tokenizer/utf8_stream.h"

namespace triptych::models {
namespace {

// \s of the pattern: the White_Space property.
bool IsSpace(int32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

CharClass ClassOf(int32_t c) {
  if (c == '\r' || c == '\n') return CharClass::kNewline;
  if (IsSpace(c)) return CharClass::kSpace;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    default:
      return CharClass::kOther;
  }
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// Canonical decomposition, not yet in canonical order.
std::vector<int32_t> Decompose(absl::string_view text) {
  std::vector<int32_t> decomposed;
  decomposed.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character character = CharacterAt(text, at);
    at = character.end;
    // The longest canonical decomposition has 4 code points (UAX 15).
    int32_t parts[8];
    int boundary_class = 0;
    const auto count = utf8proc_decompose_char(
        character.code_point, parts, 8,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE), &boundary_class);
    CHECK_TRUE(count >= 0 && count <= 8);
    decomposed.insert(decomposed.end(), parts, parts + count);
  }
  return decomposed;
}

// Sorts each run of combining marks by class, stably. The library's own ordering swaps neighbours
// and takes quadratic time on a long run.
void OrderMarks(std::vector<int32_t>* code_points) {
  const auto mark_class = [](int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto begin = code_points->begin(); begin != code_points->end();) {
    if (mark_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, code_points->end(), [&](int32_t c) { return mark_class(c) == 0; });
    std::stable_sort(begin, end,
                     [&](int32_t a, int32_t b) { return mark_class(a) < mark_class(b); });
    begin = end;
  }
}

}  // namespace

Character CharacterAt(absl::string_view text, size_t offset) {
  const auto lead = static_cast<unsigned char>(text[offset]);
  if (lead < 0x80) return {lead, ClassOf(lead), offset + 1};
  int32_t code_point = -1;
  const auto size =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset,
                       static_cast<utf8proc_ssize_t>(text.size() - offset), &code_point);
  CHECK_GT(size, 0);
  return {code_point, ClassOf(code_point), offset + static_cast<size_t>(size)};
}

void AppendUtf8(int32_t code_point, std::string* text) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(code_point, bytes);
  text->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  Utf8Stream stream;
  std::string valid = stream.Push(text);
  return valid + stream.Finish();
}

std::string NormalizeNfc(absl::string_view text) {
  if (IsAscii(text)) return std::string(text);
  std::vector<int32_t> code_points = Decompose(text);
  OrderMarks(&code_points);
  const auto count = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  CHECK_GE(count, 0);
  std::string normalized;
  normalized.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(code_points[static_cast<size_t>(i)], &normalized);
  }
  return normalized;
}

}  // namespace triptych::models
