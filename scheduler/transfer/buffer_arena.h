#pragma once

// One region of transfer memory, cut into the buffers of pieces: first fit, neighbours merge.
// Whoever plans a piece places it here, so that a device is never asked for memory that it may not
// have after the piece was promised. It knows offsets only. One thread.

#include <cstdint>
#include <map>
#include <optional>

#include "scheduler/plan/ids.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::scheduler {

class BufferArena {
 public:
  // Bytes [0, size), all free. Buffers begin at multiples of `alignment`.
  BufferArena(int64_t size, int64_t alignment);

  // Whether `peer` may hold so much more: at most half of the region is one peer's, so that a link
  // that is broken cannot take all. One buffer it may hold, whatever its size.
  bool MayHold(Incarnation peer, int64_t bytes) const;
  // The lowest gap that holds `bytes` (positive), for a piece from or to `peer`; nothing where
  // there is none. Its id is new.
  std::optional<PieceBuffer> Allocate(Incarnation peer, int64_t bytes);
  // Must be held (CHECKed).
  void Release(BufferId buffer);

  bool Holds(BufferId buffer) const { return held_.contains(buffer); }
  int num_held() const { return static_cast<int>(held_.size()); }
  int64_t held_bytes() const { return held_bytes_; }
  int64_t size() const { return size_; }

 private:
  struct Held {
    int64_t offset = 0;
    int64_t bytes = 0;  // rounded up to the alignment
    Incarnation peer;
  };

  const int64_t size_;
  const int64_t alignment_;
  int64_t held_bytes_ = 0;
  uint64_t last_id_ = 0;
  std::map<int64_t, int64_t> free_;  // offset -> bytes; neighbours are merged
  std::map<BufferId, Held> held_;
  std::map<Incarnation, int64_t> held_by_;  // bytes; none of 0
};

}  // namespace triptych::scheduler
