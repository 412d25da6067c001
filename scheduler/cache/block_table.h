#pragma once

// The blocks of one sequence, as a page table: token i lives in block pages()[i / block_tokens].
// Grows, never shrinks. Blocks shared between sequences would be a second handle in front of this
// one. Owner thread only.

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/cache/block_pool.h"

namespace triptych::scheduler {

inline int32_t BlocksFor(int32_t num_tokens, int32_t block_tokens) {
  return static_cast<int32_t>((int64_t{num_tokens} + block_tokens - 1) / block_tokens);
}

class BlockTable {
 public:
  BlockTable() = default;
  // An empty table of blocks of `pool`, which outlives it.
  BlockTable(BlockPool* pool, int32_t block_tokens) : pool_(pool), block_tokens_(block_tokens) {}

  // Makes room for tokens [0, num_tokens). False, and nothing changes, when the pool has too few
  // free blocks.
  bool Reserve(int32_t num_tokens) {
    const int32_t missing = BlocksFor(num_tokens, block_tokens_) - blocks_.size();
    if (missing <= 0) return true;
    BlockHandle more = pool_->Allocate(missing);
    if (more.size() == 0) return false;
    blocks_.Append(std::move(more));
    return true;
  }

  int32_t num_blocks() const { return blocks_.size(); }
  // Tokens that have room.
  int32_t capacity() const { return blocks_.size() * block_tokens_; }
  // The page table of tokens [0, num_tokens), which must have room.
  std::vector<BlockId> Pages(int32_t num_tokens) const {
    const auto ids = blocks_.ids().subspan(0, BlocksFor(num_tokens, block_tokens_));
    return {ids.begin(), ids.end()};
  }
  // Leaves the table empty; the blocks live on in what is returned.
  BlockHandle TakeBlocks() { return std::exchange(blocks_, BlockHandle()); }

 private:
  BlockPool* pool_ = nullptr;
  int32_t block_tokens_ = 1;
  BlockHandle blocks_;
};

}  // namespace triptych::scheduler
