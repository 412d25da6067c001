#pragma once

// A tokenizer.json that is made by the tests: every byte, a few merges, two control words.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/tokenizer/pretokenizer.h"
#include "models/tokenizer/unicode.h"

namespace triptych::testing {

inline constexpr int kSmallVocabulary = 300;

// Bytes have their own value as id; merges begin at 256; <|im_end|> is 290, the word <tool> 291.
inline nlohmann::json SmallTokenizerJson() {
  using nlohmann::json;
  json vocab = json::object();
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    std::string key;
    models::AppendUtf8(printable ? byte : next++, &key);
    vocab[key] = byte;
  }
  const std::vector<std::pair<std::string, std::string>> merges = {
      {"a", "b"}, {"b", "c"}, {"ab", "c"}, {"x", "x"}, {"xx", "xx"}, {"\u0120", "a"}};
  json list = json::array();
  int id = 256;
  for (const auto& [left, right] : merges) {
    vocab[left + right] = id++;
    list.push_back(json::array({left, right}));
  }
  json split = {{"type", "Split"}, {"pattern", {{"Regex", models::kPretokenizerPattern}}}};
  return {{"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", {split, {{"type", "ByteLevel"}}}}}},
          {"added_tokens",
           {{{"id", 290}, {"content", "<|im_end|>"}, {"special", true}},
            {{"id", 291}, {"content", "<tool>"}, {"special", false}}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

}  // namespace triptych::testing
