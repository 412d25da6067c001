#pragma once

// Byte-pair merging of one piece of text (Sennrich et al. 2016), over token ids.

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace triptych::models {

// Immutable once filled, so any thread may merge with it.
class MergeTable {
 public:
  // The pair (left, right) becomes `merged`; a lower rank goes first. False if the pair is known.
  bool Add(int32_t left, int32_t right, int32_t rank, int32_t merged) {
    return merges_.try_emplace(std::make_pair(left, right), Merge{rank, merged}).second;
  }

  // Merges until no pair is left: always the pair of the lowest rank, of equal ones the leftmost.
  // Appends the result to `out`. Returns its work: the pairs that went through the queue. They are
  // at most 3 n for n symbols (n - 1 at first, two more for each of at most n - 1 merges), and each
  // costs O(log n): O(n log n) in all, whatever the text.
  int64_t Apply(absl::Span<const int32_t> symbols, std::vector<int32_t>* out) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t merged = 0;
  };
  const Merge* Find(int32_t left, int32_t right) const {
    const auto found = merges_.find(std::make_pair(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

  absl::flat_hash_map<std::pair<int32_t, int32_t>, Merge> merges_;
};

}  // namespace triptych::models
