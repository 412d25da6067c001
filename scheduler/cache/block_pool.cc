#include "scheduler/cache/block_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

BlockHandle::BlockHandle(BlockHandle&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), ids_(std::exchange(other.ids_, {})) {}

BlockHandle& BlockHandle::operator=(BlockHandle&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = std::exchange(other.pool_, nullptr);
    ids_ = std::exchange(other.ids_, {});
  }
  return *this;
}

void BlockHandle::Append(BlockHandle other) {
  if (other.ids_.empty()) return;
  CHECK_TRUE(pool_ == nullptr || pool_ == other.pool_);
  pool_ = other.pool_;
  ids_.insert(ids_.end(), other.ids_.begin(), other.ids_.end());
  other.ids_.clear();
}

void BlockHandle::Reset() {
  if (!ids_.empty()) pool_->Release(ids_);
  ids_.clear();
}

BlockPool::BlockPool(int32_t num_blocks) : num_blocks_(num_blocks) {
  CHECK_GE(num_blocks, 0);
  free_.reserve(num_blocks);
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

BlockPool::~BlockPool() { CHECK_EQ(num_held(), 0); }

BlockHandle BlockPool::Allocate(int32_t count) {
  CHECK_GT(count, 0);
  if (count > num_free()) return {};
  std::vector<BlockId> ids(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  return BlockHandle(this, std::move(ids));
}

bool BlockPool::IsFree(BlockId block) const {
  return std::find(free_.begin(), free_.end(), block) != free_.end();
}

void BlockPool::Release(absl::Span<const BlockId> ids) {
  CHECK_LE(num_free() + static_cast<int32_t>(ids.size()), num_blocks_);
  free_.insert(free_.end(), ids.rbegin(), ids.rend());
}

}  // namespace triptych::scheduler
