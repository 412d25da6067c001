#include "engine/memory/paged_pool.h"

#include "base/status.h"

namespace triptych::engine {

absl::StatusOr<PagedPool> PagedPool::Make(const kernels::KvLayout& layout, int32_t num_blocks,
                                          int layers, int halves) {
  PagedPool pool;
  pool.layout_ = layout;
  pool.num_blocks_ = num_blocks;
  pool.halves_ = halves;
  const int64_t layer_bytes = num_blocks * (layout.block_bytes() / 2 * halves);
  ASSIGN_OR_RETURN(pool.memory_, HostMemory::Map(layers * layer_bytes));
  for (int i = 0; i < layers; ++i) {
    pool.layers_.push_back(static_cast<uint8_t*>(pool.memory_.ref().data) + i * layer_bytes);
  }
  return pool;
}

absl::StatusOr<PagedPool> PagedPool::OfKv(const kernels::KvLayout& layout, int32_t num_blocks,
                                          int layers) {
  return Make(layout, num_blocks, layers, 2);
}

absl::StatusOr<PagedPool> PagedPool::OfEmbeddings(int32_t pages, int32_t page_slots, int hidden) {
  return Make({.block_tokens = page_slots, .kv_heads = 1, .head_dim = hidden}, pages, 1, 1);
}

}  // namespace triptych::engine
