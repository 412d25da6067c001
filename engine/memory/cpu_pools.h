#pragma once

// The physical memory behind logical block and slot ids on the CPU: allocated once, mapped by
// arithmetic. It hands nothing out and knows no owner; the stage scheduler does. One thread.

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"

namespace triptych::engine {

class CpuKvPool {
 public:
  CpuKvPool(const kernels::KvLayout& layout, int32_t num_blocks, int num_layers);

  const kernels::KvLayout& layout() const { return layout_; }
  int32_t num_blocks() const { return num_blocks_; }
  // Base of each layer's pool, [num_blocks, 2, block_tokens, kv_heads, head_dim].
  absl::Span<void* const> layers() const { return layers_; }

 private:
  const kernels::KvLayout layout_;
  const int32_t num_blocks_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<void*> layers_;
};

// float32 vectors of visual tokens, [pages, page_slots, hidden].
class CpuEmbeddingPool {
 public:
  CpuEmbeddingPool(int32_t pages, int32_t page_slots, int hidden);

  // Tokens [begin, begin + count) of an item whose pages are `pages`, in runs that lie together:
  // calls `run(values, offset, count)` with the first value, the run's first token counted from
  // `begin`, and its number of tokens. Tokens outside the pages, or pages outside the pool, are a
  // CHECK.
  void ForRuns(absl::Span<const int32_t> pages, int32_t begin, int32_t count,
               absl::FunctionRef<void(float* values, int32_t offset, int32_t count)> run);

 private:
  const int32_t pages_;
  const int32_t page_slots_;
  const int hidden_;
  std::vector<float> memory_;
};

}  // namespace triptych::engine
