#include "kernels/decode_choices.h"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace triptych::kernels {
namespace {

using Words = std::vector<std::string>;

// All of `words` from the second on as numbers; empty: one is none.
std::vector<int64_t> Numbers(const Words& words) {
  std::vector<int64_t> numbers;
  for (size_t i = 1; i < words.size(); ++i) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(words[i], &number)) return {};
    if (number < 0 || number > (int64_t{1} << 30)) return {};
    numbers.push_back(number);
  }
  return numbers;
}

int TileNamed(const std::string& name) {
  for (int i = 0; i < kNumDecodeTiles; ++i) {
    const DecodeTile& tile = kDecodeTiles[i];
    if (name == absl::StrCat(tile.chunk, "x", tile.chunks, "x", tile.boxes)) return i;
  }
  return -1;
}

bool AddLinear(Words words, GemmChoices* choices) {
  if (words.size() != 9) return false;
  const int tile = TileNamed(words[5]);
  words.erase(words.begin() + 5);
  const std::vector<int64_t> n = Numbers(words);
  if (n.size() != 7 || tile < 0) return false;
  const auto split = static_cast<int>(n[4]);
  if (split != 1 && split != 2 && split != 4 && split != 8) return false;
  choices->linear.push_back({.key = {.inputs = n[0], .outputs = n[1], .swiglu = n[2] != 0},
                             .rows = n[3],
                             .choice = {.tile = tile,
                                        .split = split,
                                        .stages = static_cast<int>(n[5]),
                                        .trigger = static_cast<int>(n[6])}});
  return true;
}

bool AddAttention(const Words& words, GemmChoices* choices) {
  const std::vector<int64_t> n = Numbers(words);
  if (n.size() != 8 || n[4] < 1 || n[4] > 8 || n[5] < 1 || n[5] > 4096) return false;
  choices->attention.push_back(
      {.key = {.heads = static_cast<int>(n[0]), .kv_heads = static_cast<int>(n[1])},
       .rows = n[2],
       .context = n[3] == 0 ? std::numeric_limits<int64_t>::max() : n[3],
       .choice = {.cluster = static_cast<int>(n[4]),
                  .target = static_cast<int>(n[5]),
                  .beside = n[6] != 0,
                  .early = n[7] != 0}});
  return true;
}

}  // namespace

const DecodeLinearChoice* GemmChoices::Find(const LinearChoiceKey& key, int64_t rows) const {
  const Linear* best = nullptr;
  for (const Linear& line : linear) {
    if (line.key.inputs != key.inputs || line.key.outputs != key.outputs ||
        line.key.swiglu != key.swiglu || line.rows < rows) {
      continue;
    }
    if (best == nullptr || line.rows < best->rows) best = &line;
  }
  return best == nullptr ? nullptr : &best->choice;
}

const DecodeAttentionChoice* GemmChoices::Find(const AttentionChoiceKey& key, int64_t rows,
                                               int64_t context) const {
  const Attention* best = nullptr;
  for (const Attention& line : attention) {
    if (line.key.heads != key.heads || line.key.kv_heads != key.kv_heads || line.rows < rows ||
        line.context < context) {
      continue;
    }
    if (best == nullptr ||
        std::tie(line.rows, line.context) < std::tie(best->rows, best->context)) {
      best = &line;
    }
  }
  return best == nullptr ? nullptr : &best->choice;
}

absl::StatusOr<GemmChoices> ParseDecodeChoices(absl::string_view text) {
  GemmChoices choices;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const Words words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    const bool known = words[0] == "linear"      ? AddLinear(words, &choices)
                       : words[0] == "attention" ? AddAttention(words, &choices)
                                                 : false;
    if (!known) {
      return absl::InvalidArgumentError(absl::StrCat("decode choices: line ", number));
    }
  }
  return choices;
}

DecodeAttentionChoice RuleForAttention(const AttentionChoiceKey& key, int64_t rows, int64_t context,
                                       int sm_count) {
  DecodeAttentionChoice choice;
  choice.cluster = rows <= 2 ? 8 : rows <= 8 ? 4 : 1;
  choice.target = std::max(1, 2 * sm_count / (key.kv_heads * choice.cluster));
  choice.early = rows <= 32;
  // From here on a launch's latency is less than what crowded blocks cost.
  constexpr int64_t kManyTokens = 128 * 1024;
  choice.beside = rows * context < kManyTokens;
  return choice;
}

}  // namespace triptych::kernels
