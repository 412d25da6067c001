#pragma once

// Text to token ids and back: byte-level BPE as Qwen2 publishes it in tokenizer.json. Streaming the
// other way is detokenizer.h.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/tokenizer/byte_pairs.h"

namespace triptych::models {

// Immutable, so any thread may use it.
class Tokenizer {
 public:
  // Reads tokenizer.json of `dir`. NOT_FOUND when it is missing; INVALID_ARGUMENT when it is
  // malformed, of another kind than byte-level BPE with Qwen2's pattern, or has ids outside
  // [0, vocab_size), the rows of the embedding table.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir, int vocab_size);
  // The same from the text of the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(absl::string_view json, int vocab_size);

  // Tokens of a user's text. Control words such as <|im_end|> in it are plain text: a control id
  // never comes out. Bytes that are no UTF-8 become U+FFFD. O(n log n) in the longest word.
  std::vector<int32_t> Encode(absl::string_view text) const;
  // The same for a text that must fit: false, and `ids` is of no use, when it has more than
  // `max_tokens` tokens or a word of more than kMaxWordBytes. Linear, and stops soon after
  // `max_tokens`.
  bool EncodeAtMost(absl::string_view text, size_t max_tokens, std::vector<int32_t>* ids) const;
  // Bounds the logarithm of a text's time; no language has such a word.
  static constexpr size_t kMaxWordBytes = 64 << 10;
  // A text of more than this many bytes has more than `tokens` tokens, whatever it says.
  size_t MostBytesOf(size_t tokens) const;
  // Tokens of a text of our own, in which control words are control ids.
  std::vector<int32_t> EncodeWithControl(absl::string_view text) const;

  // Id of a control word, if there is such a one.
  std::optional<int32_t> ControlId(absl::string_view word) const;
  // The bytes that a token stands for; nothing for special control tokens and for ids without one.
  // Not always whole characters. Lives as long as the tokenizer.
  absl::string_view TokenBytes(int32_t id) const;
  // The word that a control id was published as; empty for other ids. A walk over the few of them.
  absl::string_view ControlText(int32_t id) const;
  // The bytes of all tokens together, made valid UTF-8.
  std::string Decode(const std::vector<int32_t>& ids) const;

 private:
  friend class TokenizerFileReader;
  Tokenizer() = default;
  // Appends the tokens of a text without control words.
  struct Bound {
    size_t max_tokens = SIZE_MAX;
    size_t max_word_bytes = SIZE_MAX;
  };
  bool AppendText(absl::string_view text, const Bound& bound, std::vector<int32_t>* ids) const;
  bool AppendNormalized(absl::string_view text, const Bound& bound,
                        std::vector<int32_t>* ids) const;

  std::vector<std::string> bytes_;          // by id
  std::array<int32_t, 256> byte_ids_ = {};  // token of each single byte
  MergeTable merges_;
  bool normalize_ = true;
  size_t longest_bytes_ = 1;  // of a token
  // Control words and ids, the longest word first.
  std::vector<std::pair<std::string, int32_t>> controls_;
};

}  // namespace triptych::models
