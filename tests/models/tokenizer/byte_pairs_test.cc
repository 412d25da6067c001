// What is defended: the merging of one giant word is that of the definition, and its work grows
// with the word's length and not with its square, whatever the word. Work is counted, not timed.

#include "models/tokenizer/byte_pairs.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

namespace triptych::models {
namespace {

using Symbols = std::vector<int32_t>;

struct Pair {
  int32_t left, right, merged;
};

// By rank. Symbols 0 to 3 are letters; runs double up to 64 letters, and neighbours merge in a
// chain, so that the last merge of a word can come from any of its ends.
std::vector<Pair> Pairs() {
  std::vector<Pair> pairs;
  for (int32_t letter = 0; letter < 4; ++letter) {
    int32_t run = letter;
    for (int doubling = 0; doubling < 6; ++doubling) {
      const int32_t twice = 10 + letter * 10 + doubling;
      pairs.push_back({run, run, twice});
      run = twice;
    }
  }
  pairs.push_back({0, 1, 60});
  pairs.push_back({60, 60, 61});
  pairs.push_back({61, 0, 62});
  pairs.push_back({62, 1, 63});
  pairs.push_back({63, 61, 64});
  return pairs;
}

MergeTable Table() {
  MergeTable table;
  int32_t rank = 0;
  for (const Pair& pair : Pairs()) REQUIRE(table.Add(pair.left, pair.right, rank++, pair.merged));
  return table;
}

// The definition: the pair of the lowest rank, of equal ones the leftmost, until none is left.
Symbols MergeByDefinition(Symbols symbols) {
  const std::vector<Pair> pairs = Pairs();
  while (true) {
    size_t best_rank = pairs.size(), best_at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const Pair& pair) {
        return pair.left == symbols[i] && pair.right == symbols[i + 1];
      });
      const auto rank = static_cast<size_t>(found - pairs.begin());
      if (rank >= best_rank) continue;
      best_rank = rank;
      best_at = i;
    }
    if (best_rank == pairs.size()) return symbols;
    symbols[best_at] = pairs[best_rank].merged;
    symbols.erase(symbols.begin() + static_cast<int64_t>(best_at) + 1);
  }
}

// Words of one length that an attacker would send.
std::vector<Symbols> GiantWords(size_t length) {
  constexpr unsigned kSeed = 23;
  std::mt19937 random(kSeed);
  std::vector<Symbols> words(4, Symbols(length));
  for (size_t i = 0; i < length; ++i) {
    words[0][i] = 0;
    words[1][i] = static_cast<int32_t>(i % 2);
    words[2][i] = static_cast<int32_t>(random() % 2);
    words[3][i] = static_cast<int32_t>(random() % 4);
  }
  return words;
}

}  // namespace

TEST_CASE("MergeTable: a merge is that of the definition", "[models][tokenizer][fuzz]") {
  constexpr unsigned kSeed = 29;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  const MergeTable table = Table();
  for (int round = 0; round < 2000; ++round) {
    Symbols word(random() % 60);
    const unsigned letters = 1 + random() % 4;
    for (int32_t& symbol : word) symbol = static_cast<int32_t>(random() % letters);
    Symbols merged;
    table.Apply(word, &merged);
    REQUIRE(merged == MergeByDefinition(word));
  }
}

TEST_CASE("MergeTable: twice the word is twice the work", "[models][tokenizer][hostile]") {
  const MergeTable table = Table();
  std::vector<int64_t> before(4);
  for (size_t length = 1 << 10; length <= 1 << 18; length *= 2) {
    const std::vector<Symbols> words = GiantWords(length);
    for (size_t i = 0; i < words.size(); ++i) {
      Symbols merged;
      const int64_t work = table.Apply(words[i], &merged);
      INFO("word " << i << " of " << length << " symbols: work " << work);
      CHECK(work >= static_cast<int64_t>(length - merged.size()));
      CHECK(work <= static_cast<int64_t>(3 * length));
      // Random words differ a little from their first half.
      if (before[i] > 0) CHECK(work <= before[i] * 2 + before[i] / 8);
      before[i] = work;
    }
  }
}

}  // namespace triptych::models
