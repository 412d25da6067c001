// Reads tokenizer.json into a Tokenizer. Everything is checked here, once, so that encoding needs
// no checks.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "models/tokenizer/pretokenizer.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/unicode.h"
#include "models/weights/json_text.h"

namespace triptych::models {
namespace {

using nlohmann::json;

absl::Status Malformed(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", why));
}

const json& Member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool IsString(const json& value, absl::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

// The code point that stands for each byte in the file (GPT-2's table): printable bytes stand for
// themselves, the others for U+0100 and on, in order.
std::array<int32_t, 256> ByteCharacters() {
  std::array<int32_t, 256> characters = {};
  int32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                           (byte >= 0xae && byte <= 0xff);
    characters[static_cast<size_t>(byte)] = printable ? byte : next++;
  }
  return characters;
}

}  // namespace

class TokenizerFileReader {
 public:
  explicit TokenizerFileReader(int vocab_size) : vocab_size_(vocab_size) {
    const auto characters = ByteCharacters();
    for (int byte = 0; byte < 256; ++byte) {
      byte_of_[characters[static_cast<size_t>(byte)]] = static_cast<char>(byte);
    }
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> Read(const json& root) {
    RETURN_IF_ERROR(CheckKind(root));
    tokenizer_->bytes_.resize(static_cast<size_t>(vocab_size_));
    const json& model = Member(root, "model");
    RETURN_IF_ERROR(ReadVocabulary(Member(model, "vocab")));
    RETURN_IF_ERROR(ReadControls(Member(root, "added_tokens")));
    RETURN_IF_ERROR(ReadMerges(Member(model, "merges")));
    return std::move(tokenizer_);
  }

 private:
  // Refuses what would be tokenised in another way than ours.
  absl::Status CheckKind(const json& root) {
    const json& model = Member(root, "model");
    if (!IsString(Member(model, "type"), "BPE")) return Malformed("the model is not BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const json& value = Member(model, key);
      if (!value.is_null() && !IsString(value, "")) return Malformed(absl::StrCat(key, " is set"));
    }
    if (Member(model, "ignore_merges") == true) return Malformed("ignore_merges is set");
    const json& normalizer = Member(root, "normalizer");
    tokenizer_->normalize_ = !normalizer.is_null();
    if (tokenizer_->normalize_ && !IsString(Member(normalizer, "type"), "NFC")) {
      return Malformed("the normalizer is not NFC");
    }
    bool has_pattern = false, is_byte_level = false;
    const json& steps = Member(Member(root, "pre_tokenizer"), "pretokenizers");
    for (const json& step : steps.is_array() ? steps : json::array()) {
      has_pattern |= IsString(Member(Member(step, "pattern"), "Regex"), kPretokenizerPattern);
      is_byte_level |= IsString(Member(step, "type"), "ByteLevel");
    }
    if (!has_pattern || !is_byte_level) return Malformed("the pre-tokenizer is not Qwen2's");
    return absl::OkStatus();
  }

  // An id inside the embedding table, or an error.
  absl::StatusOr<int32_t> Id(const json& value) const {
    if (value.is_number_integer()) {
      const auto id = value.get<int64_t>();
      if (id >= 0 && id < vocab_size_) return static_cast<int32_t>(id);
    }
    return Malformed(absl::StrCat("an id is not in [0, ", vocab_size_, ")"));
  }

  // The bytes that a vocabulary entry stands for.
  absl::StatusOr<std::string> BytesOf(const std::string& token) const {
    std::string bytes;
    for (size_t at = 0; at < token.size();) {
      const Character character = CharacterAt(token, at);
      const auto found = byte_of_.find(character.code_point);
      if (found == byte_of_.end()) return Malformed("a token holds no byte-level characters");
      bytes += found->second;
      at = character.end;
    }
    if (bytes.empty()) return Malformed("a token is empty");
    return bytes;
  }

  absl::Status ReadVocabulary(const json& vocabulary) {
    if (!vocabulary.is_object()) return Malformed("no vocabulary");
    for (const auto& [token, value] : vocabulary.items()) {
      ASSIGN_OR_RETURN(const int32_t id, Id(value));
      ASSIGN_OR_RETURN(std::string bytes, BytesOf(token));
      std::string& slot = tokenizer_->bytes_[static_cast<size_t>(id)];
      if (!slot.empty()) return Malformed(absl::StrCat("id ", id, " is used twice"));
      slot = bytes;
      tokenizer_->longest_bytes_ = std::max(tokenizer_->longest_bytes_, bytes.size());
      ids_[std::move(bytes)] = id;
    }
    for (int byte = 0; byte < 256; ++byte) {
      const auto found = ids_.find(std::string(1, static_cast<char>(byte)));
      if (found == ids_.end()) return Malformed(absl::StrCat("no token for byte ", byte));
      tokenizer_->byte_ids_[static_cast<size_t>(byte)] = found->second;
    }
    return absl::OkStatus();
  }

  absl::Status ReadControls(const json& tokens) {
    if (!tokens.is_array()) return Malformed("no added_tokens");
    for (const json& token : tokens) {
      const json& content = Member(token, "content");
      if (!content.is_string() || content.get_ref<const std::string&>().empty()) {
        return Malformed("an added token has no content");
      }
      for (const char* key : {"lstrip", "rstrip", "single_word", "normalized"}) {
        if (Member(token, key) == true) return Malformed(absl::StrCat(key, " is set"));
      }
      ASSIGN_OR_RETURN(const int32_t id, Id(Member(token, "id")));
      std::string& slot = tokenizer_->bytes_[static_cast<size_t>(id)];
      if (!slot.empty()) return Malformed(absl::StrCat("id ", id, " is used twice"));
      const std::string& word = content.get_ref<const std::string&>();
      // Special ones are never shown; the rest are words that the model may say.
      if (Member(token, "special") != true) slot = word;
      tokenizer_->controls_.emplace_back(word, id);
    }
    std::stable_sort(tokenizer_->controls_.begin(), tokenizer_->controls_.end(),
                     [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
    return absl::OkStatus();
  }

  // Both published spellings: "left right" and ["left", "right"].
  absl::StatusOr<std::pair<std::string, std::string>> MergeWords(const json& merge) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return std::make_pair(merge[0].get<std::string>(), merge[1].get<std::string>());
    }
    if (merge.is_string()) {
      const std::string& words = merge.get_ref<const std::string&>();
      const size_t space = words.find(' ');
      if (space != std::string::npos) {
        return std::make_pair(words.substr(0, space), words.substr(space + 1));
      }
    }
    return Malformed("a merge is no pair of tokens");
  }

  absl::Status ReadMerges(const json& merges) {
    if (!merges.is_array() || merges.size() > size_t{1} << 24) return Malformed("no merges");
    int32_t rank = 0;
    for (const json& merge : merges) {
      ASSIGN_OR_RETURN(const auto words, MergeWords(merge));
      ASSIGN_OR_RETURN(const std::string left, BytesOf(words.first));
      ASSIGN_OR_RETURN(const std::string right, BytesOf(words.second));
      const auto a = ids_.find(left), b = ids_.find(right), both = ids_.find(left + right);
      if (a == ids_.end() || b == ids_.end() || both == ids_.end()) {
        return Malformed(absl::StrCat("merge ", rank, " has a token outside the vocabulary"));
      }
      tokenizer_->merges_.Add(a->second, b->second, rank, both->second);
      ++rank;
    }
    return absl::OkStatus();
  }

  const int vocab_size_;
  absl::flat_hash_map<int32_t, char> byte_of_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::unique_ptr<Tokenizer> tokenizer_{new Tokenizer()};
};

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(absl::string_view text,
                                                            int vocab_size) {
  ASSIGN_OR_RETURN(const json root, ParseJsonObject(text, "tokenizer.json"));
  return TokenizerFileReader(vocab_size).Read(root);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& dir, int vocab_size) {
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(dir + "/tokenizer.json"));
  return Parse(text, vocab_size);
}

}  // namespace triptych::models
