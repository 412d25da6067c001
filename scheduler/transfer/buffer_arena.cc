#include "scheduler/transfer/buffer_arena.h"

#include <iterator>

#include "base/check.h"

namespace triptych::scheduler {

BufferArena::BufferArena(int64_t size, int64_t alignment)
    : size_(size - size % alignment), alignment_(alignment) {
  CHECK_TRUE(size >= 0 && alignment > 0);
  if (size_ > 0) free_[0] = size_;
}

bool BufferArena::MayHold(Incarnation peer, int64_t bytes) const {
  auto it = held_by_.find(peer);
  return it == held_by_.end() || it->second + bytes <= size_ / 2;
}

std::optional<PieceBuffer> BufferArena::Allocate(Incarnation peer, int64_t bytes) {
  CHECK_GT(bytes, 0);
  if (bytes > size_ - held_bytes_) return std::nullopt;
  const int64_t rounded = (bytes + alignment_ - 1) / alignment_ * alignment_;
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [offset, room] = *it;
    if (room < rounded) continue;
    free_.erase(it);
    if (room > rounded) free_[offset + rounded] = room - rounded;
    held_bytes_ += rounded;
    const BufferId id(++last_id_);
    held_[id] = {offset, rounded, peer};
    held_by_[peer] += rounded;
    return PieceBuffer{.id = id, .offset = offset, .bytes = bytes};
  }
  return std::nullopt;
}

void BufferArena::Release(BufferId buffer) {
  const auto found = held_.find(buffer);
  CHECK_TRUE(found != held_.end());
  const Held held = found->second;
  held_.erase(found);
  held_bytes_ -= held.bytes;
  auto by = held_by_.find(held.peer);
  if ((by->second -= held.bytes) == 0) held_by_.erase(by);
  auto it = free_.emplace(held.offset, held.bytes).first;
  if (auto next = std::next(it); next != free_.end() && held.offset + held.bytes == next->first) {
    it->second += next->second;
    free_.erase(next);
  }
  if (it == free_.begin()) return;
  auto previous = std::prev(it);
  if (previous->first + previous->second != held.offset) return;
  previous->second += it->second;
  free_.erase(it);
}

}  // namespace triptych::scheduler
