#pragma once

// The physical memory behind logical block and page ids on the host: the KV of all layers, or the
// visual tokens. Mapped once, resident only where it was used, found by arithmetic. It hands
// nothing out and knows no owner; the stage scheduler does. One thread.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/memory/host_memory.h"
#include "kernels/kv_layout.h"

namespace triptych::engine {

class PagedPool {
 public:
  PagedPool() = default;
  // `layers` pools of [num_blocks, 2 (K, V), block_tokens, kv_heads, head_dim]. RESOURCE_EXHAUSTED
  // when the address space has no room. Sizes may be 0.
  static absl::StatusOr<PagedPool> OfKv(const kernels::KvLayout& layout, int32_t num_blocks,
                                        int layers);
  // Vectors of visual tokens, float32 [pages, page_slots, hidden]: a layout of one head.
  static absl::StatusOr<PagedPool> OfEmbeddings(int32_t pages, int32_t page_slots, int hidden);

  const kernels::KvLayout& layout() const { return layout_; }
  int32_t num_blocks() const { return num_blocks_; }
  int halves() const { return halves_; }  // 2: K and V; 1: embeddings
  int64_t slots() const { return int64_t{num_blocks_} * layout_.block_tokens; }
  // Base of each layer's pool; of embeddings there is one.
  absl::Span<void* const> layers() const { return layers_; }

 private:
  static absl::StatusOr<PagedPool> Make(const kernels::KvLayout& layout, int32_t num_blocks,
                                        int layers, int halves);

  kernels::KvLayout layout_;
  int32_t num_blocks_ = 0;
  int halves_ = 2;
  HostMemory memory_;
  std::vector<void*> layers_;
};

}  // namespace triptych::engine
