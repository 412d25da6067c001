#include "engine/memory/cpu_pools.h"

#include <algorithm>

#include "base/check.h"

namespace triptych::engine {

CpuKvPool::CpuKvPool(const kernels::KvLayout& layout, int32_t num_blocks, int num_layers)
    : layout_(layout), num_blocks_(num_blocks), memory_(num_layers) {
  for (std::vector<uint8_t>& layer : memory_) {
    layer.resize(num_blocks * layout.block_bytes());
    layers_.push_back(layer.data());
  }
}

CpuEmbeddingPool::CpuEmbeddingPool(int32_t pages, int32_t page_slots, int hidden)
    : pages_(pages),
      page_slots_(page_slots),
      hidden_(hidden),
      memory_(int64_t{pages} * page_slots * hidden) {}

void CpuEmbeddingPool::ForRuns(
    absl::Span<const int32_t> pages, int32_t begin, int32_t count,
    absl::FunctionRef<void(float* values, int32_t offset, int32_t count)> run) {
  CHECK_TRUE(begin >= 0 && count >= 0);
  CHECK_LE(int64_t{begin} + count, static_cast<int64_t>(pages.size()) * page_slots_);
  for (int32_t done = 0; done < count;) {
    const int32_t token = begin + done;
    const int32_t page = pages[token / page_slots_];
    CHECK_TRUE(page >= 0 && page < pages_);
    const int32_t slot = token % page_slots_;
    const int32_t size = std::min(count - done, page_slots_ - slot);
    run(memory_.data() + (int64_t{page} * page_slots_ + slot) * hidden_, done, size);
    done += size;
  }
}

}  // namespace triptych::engine
