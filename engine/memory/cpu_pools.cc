#include "engine/memory/cpu_pools.h"

#include "base/check.h"

namespace triptych::engine {

CpuKvPool::CpuKvPool(const kernels::KvLayout& layout, int32_t num_blocks, int num_layers)
    : layout_(layout), num_blocks_(num_blocks), memory_(num_layers) {
  for (std::vector<uint8_t>& layer : memory_) {
    layer.resize(num_blocks * layout.block_bytes());
    layers_.push_back(layer.data());
  }
}

CpuEmbeddingPool::CpuEmbeddingPool(int32_t slots, int hidden)
    : slots_(slots), hidden_(hidden), memory_(int64_t{slots} * hidden) {}

float* CpuEmbeddingPool::Slots(int32_t slot, int32_t count) {
  CHECK_TRUE(slot >= 0 && count >= 0 && slot <= slots_ - count);
  return memory_.data() + int64_t{slot} * hidden_;
}

}  // namespace triptych::engine
