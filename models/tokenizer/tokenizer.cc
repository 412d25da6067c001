#include "models/tokenizer/tokenizer.h"

#include "base/check.h"
#include "models/tokenizer/pretokenizer.h"
#include "models/tokenizer/unicode.h"

namespace triptych::models {

std::vector<int32_t> Tokenizer::Encode(absl::string_view text) const {
  std::vector<int32_t> ids;
  AppendText(text, {}, &ids);
  return ids;
}

bool Tokenizer::EncodeAtMost(absl::string_view text, size_t max_tokens,
                             std::vector<int32_t>* ids) const {
  return AppendText(text, {.max_tokens = max_tokens, .max_word_bytes = kMaxWordBytes}, ids);
}

size_t Tokenizer::MostBytesOf(size_t tokens) const {
  // Normalising makes three bytes of nine where a syllable of Hangul is composed, and at least a
  // third of anything else.
  return 3 * longest_bytes_ * tokens;
}

std::vector<int32_t> Tokenizer::EncodeWithControl(absl::string_view text) const {
  std::vector<int32_t> ids;
  size_t plain_begin = 0;
  for (size_t at = 0; at < text.size();) {
    const std::pair<std::string, int32_t>* match = nullptr;
    for (const auto& control : controls_) {
      if (text.compare(at, control.first.size(), control.first) != 0) continue;
      match = &control;
      break;
    }
    if (match == nullptr) {
      ++at;
      continue;
    }
    AppendText(text.substr(plain_begin, at - plain_begin), {}, &ids);
    ids.push_back(match->second);
    at += match->first.size();
    plain_begin = at;
  }
  AppendText(text.substr(plain_begin), {}, &ids);
  return ids;
}

std::optional<int32_t> Tokenizer::ControlId(absl::string_view word) const {
  for (const auto& [text, id] : controls_) {
    if (text == word) return id;
  }
  return std::nullopt;
}

absl::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= bytes_.size()) return {};
  return bytes_[static_cast<size_t>(id)];
}

absl::string_view Tokenizer::ControlText(int32_t id) const {
  for (const auto& [text, control] : controls_) {
    if (control == id) return text;
  }
  return {};
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes.append(TokenBytes(id).data(), TokenBytes(id).size());
  return ReplaceInvalidUtf8(bytes);
}

bool Tokenizer::AppendText(absl::string_view text, const Bound& bound,
                           std::vector<int32_t>* ids) const {
  if (text.empty()) return true;
  const std::string valid = ReplaceInvalidUtf8(text);
  return AppendNormalized(normalize_ ? NormalizeNfc(valid) : valid, bound, ids);
}

bool Tokenizer::AppendNormalized(absl::string_view text, const Bound& bound,
                                 std::vector<int32_t>* ids) const {
  std::vector<int32_t> symbols;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = PieceEnd(text, begin);
    CHECK_GT(end, begin);
    if (end - begin > bound.max_word_bytes) return false;
    symbols.clear();
    for (size_t i = begin; i < end; ++i) {
      symbols.push_back(byte_ids_[static_cast<unsigned char>(text[i])]);
    }
    merges_.Apply(symbols, ids);
    if (ids->size() > bound.max_tokens) return false;
    begin = end;
  }
  return true;
}

}  // namespace triptych::models
