#pragma once

// The physical memory behind logical block and page ids on a CUDA device: the KV of all layers and
// the visual tokens, bfloat16, allocated once and zeroed. It hands nothing out and knows no owner;
// the stage scheduler does. Immutable.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "kernels/kv_layout.h"
#include "models/decoder/decoder.h"

namespace triptych::engine {

struct GpuPools {
  kernels::KvLayout kv_layout;
  int64_t kv_blocks = 0;
  std::vector<void*> kv_layers;        // each [kv_blocks, 2, block_tokens, kv_heads, head_dim]
  kernels::KvLayout embedding_layout;  // of pages: block_tokens slots of one head
  int64_t embedding_pages = 0;
  void* embeddings = nullptr;  // [embedding_pages, page_slots, hidden]
  base::DeviceMemory kv_memory, embedding_memory;

  models::KvPools kv() const { return {kv_layout, kv_blocks, kv_layers}; }
  int64_t embedding_slots() const { return embedding_pages * embedding_layout.block_tokens; }
};

}  // namespace triptych::engine
