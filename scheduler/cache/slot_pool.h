#pragma once

// The embedding slots of one worker: contiguous ranges, one an item, first fit. A slot holds one
// visual token. Owner thread only.

#include <cstdint>
#include <map>

namespace triptych::scheduler {

class SlotPool;

// Slots [first, first + count), given back when it dies. Must not outlive its pool.
class SlotRange {
 public:
  SlotRange() = default;
  SlotRange(SlotRange&& other) noexcept;
  SlotRange& operator=(SlotRange&& other) noexcept;
  ~SlotRange() { Reset(); }

  int32_t first() const { return first_; }
  int32_t count() const { return count_; }
  bool empty() const { return count_ == 0; }
  // Gives the slots back.
  void Reset();

 private:
  friend class SlotPool;
  SlotRange(SlotPool* pool, int32_t first, int32_t count)
      : pool_(pool), first_(first), count_(count) {}

  SlotPool* pool_ = nullptr;
  int32_t first_ = 0;
  int32_t count_ = 0;
};

class SlotPool {
 public:
  // Slots 0 .. num_slots - 1, all free.
  explicit SlotPool(int32_t num_slots);
  // Checks that nothing is out.
  ~SlotPool();
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  int32_t num_slots() const { return num_slots_; }
  int32_t num_free() const { return num_free_; }
  int32_t num_held() const { return num_slots_ - num_free_; }

  // The lowest contiguous range of `count` (positive) free slots; empty when there is none.
  SlotRange Allocate(int32_t count);
  // For tests and invariants.
  bool IsFree(int32_t slot) const;

 private:
  friend class SlotRange;
  void Release(int32_t first, int32_t count);

  const int32_t num_slots_;
  int32_t num_free_;
  std::map<int32_t, int32_t> free_;  // first -> count; neighbours are merged
};

}  // namespace triptych::scheduler
