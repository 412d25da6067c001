#include "scheduler/cache/slot_pool.h"

#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

SlotRange::SlotRange(SlotRange&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      first_(other.first_),
      count_(std::exchange(other.count_, 0)) {}

SlotRange& SlotRange::operator=(SlotRange&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = std::exchange(other.pool_, nullptr);
    first_ = other.first_;
    count_ = std::exchange(other.count_, 0);
  }
  return *this;
}

void SlotRange::Reset() {
  if (count_ > 0) pool_->Release(first_, count_);
  count_ = 0;
}

SlotPool::SlotPool(int32_t num_slots) : num_slots_(num_slots), num_free_(num_slots) {
  CHECK_GE(num_slots, 0);
  if (num_slots > 0) free_[0] = num_slots;
}

SlotPool::~SlotPool() { CHECK_EQ(num_free_, num_slots_); }

SlotRange SlotPool::Allocate(int32_t count) {
  CHECK_GT(count, 0);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [first, size] = *it;
    if (size < count) continue;
    free_.erase(it);
    if (size > count) free_[first + count] = size - count;
    num_free_ -= count;
    return SlotRange(this, first, count);
  }
  return {};
}

bool SlotPool::IsFree(int32_t slot) const {
  auto it = free_.upper_bound(slot);
  if (it == free_.begin()) return false;
  --it;
  return slot < it->first + it->second;
}

void SlotPool::Release(int32_t first, int32_t count) {
  auto [it, inserted] = free_.emplace(first, count);
  CHECK_TRUE(inserted);
  num_free_ += count;
  if (auto next = std::next(it); next != free_.end()) {
    CHECK_LE(first + count, next->first);
    if (first + count == next->first) {
      it->second += next->second;
      free_.erase(next);
    }
  }
  if (it == free_.begin()) return;
  auto previous = std::prev(it);
  CHECK_LE(previous->first + previous->second, first);
  if (previous->first + previous->second == first) {
    previous->second += it->second;
    free_.erase(it);
  }
}

}  // namespace triptych::scheduler
