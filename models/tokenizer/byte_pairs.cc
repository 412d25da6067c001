#include "models/tokenizer/byte_pairs.h"

#include <functional>
#include <queue>
#include <tuple>

namespace triptych::models {
namespace {

// A symbol in a doubly linked list over the piece; -1 ends it.
struct Node {
  int32_t symbol = 0;
  int32_t previous = -1;
  int32_t next = -1;
};

// A pair that could merge when it was found. Stale once either symbol has changed.
struct Candidate {
  int32_t rank = 0;
  int32_t left = 0;  // node
  int32_t left_symbol = 0;
  int32_t right_symbol = 0;
  int32_t merged = 0;
  bool operator>(const Candidate& other) const {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

constexpr int32_t kGone = -1;

}  // namespace

int64_t MergeTable::Apply(absl::Span<const int32_t> symbols, std::vector<int32_t>* out) const {
  const auto count = static_cast<int32_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  int64_t queued = 0;
  const auto consider = [&](int32_t left) {
    if (left < 0 || nodes[left].next < 0) return;
    const int32_t a = nodes[left].symbol, b = nodes[nodes[left].next].symbol;
    const Merge* merge = Find(a, b);
    if (merge == nullptr) return;
    candidates.push({merge->rank, left, a, b, merge->merged});
    ++queued;
  };
  for (int32_t i = 0; i < count; ++i) {
    nodes[i] = {symbols[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) consider(i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Node& left = nodes[best.left];
    if (left.symbol != best.left_symbol || left.next < 0) continue;
    Node& right = nodes[left.next];
    if (right.symbol != best.right_symbol) continue;
    left.symbol = best.merged;
    right.symbol = kGone;
    left.next = right.next;
    if (left.next >= 0) nodes[left.next].previous = best.left;
    consider(left.previous);
    consider(best.left);
  }
  for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = nodes[i].next) out->push_back(nodes[i].symbol);
  return queued;
}

}  // namespace triptych::models
