#pragma once

// The KV blocks of one worker, or the pages of its embedding slots: which ids are free and who
// holds the others. It knows nothing of memory addresses (engine/memory), of sequences or of
// sharing. Owner thread only.

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/plan/ids.h"

namespace triptych::scheduler {

class BlockPool;

// Blocks that are held together, in the order of the tokens that they store. They go back to the
// pool when the handle dies. Must not outlive its pool.
class BlockHandle {
 public:
  BlockHandle() = default;
  BlockHandle(BlockHandle&& other) noexcept;
  BlockHandle& operator=(BlockHandle&& other) noexcept;
  ~BlockHandle() { Reset(); }

  absl::Span<const BlockId> ids() const { return ids_; }
  int32_t size() const { return static_cast<int32_t>(ids_.size()); }
  bool empty() const { return ids_.empty(); }
  // The ids as a plan names them.
  std::vector<BlockId> Pages() const { return ids_; }
  // Takes `other`'s blocks behind its own. Both must be of one pool.
  void Append(BlockHandle other);
  // Gives all back.
  void Reset();

 private:
  friend class BlockPool;
  BlockHandle(BlockPool* pool, std::vector<BlockId> ids) : pool_(pool), ids_(std::move(ids)) {}

  BlockPool* pool_ = nullptr;
  std::vector<BlockId> ids_;
};

class BlockPool {
 public:
  // Blocks 0 .. num_blocks - 1, all free.
  explicit BlockPool(int32_t num_blocks);
  // Checks that nothing is out.
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_held() const { return num_blocks_ - num_free(); }

  // `count` blocks, the last released first (its lines are the likeliest to be cached). All or
  // nothing: an empty handle when fewer are free. `count` is positive.
  BlockHandle Allocate(int32_t count);

  // O(num_blocks): for tests and invariants.
  bool IsFree(BlockId block) const;

 private:
  friend class BlockHandle;
  void Release(absl::Span<const BlockId> ids);

  const int32_t num_blocks_;
  std::vector<BlockId> free_;  // a stack
};

}  // namespace triptych::scheduler
