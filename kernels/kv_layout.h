#pragma once

// How KV pages lie in memory, on every device (the layout FlashInfer calls NHD, K and V interleaved
// by page): one layer's pool is [num_blocks, 2 (K, V), block_tokens, kv_heads, head_dim].

#include <cstdint>

#include "base/dtype.h"

namespace triptych::kernels {

using base::DType;
using base::DTypeName;
using base::SizeOf;

// Token t of a sequence whose page table is `pages` lies in block pages[t / block_tokens], row
// t % block_tokens. Strides in elements.
struct KvLayout {
  int block_tokens = 16;
  int kv_heads = 0;
  int head_dim = 0;
  DType dtype = DType::kFloat32;

  int64_t token_elements() const { return int64_t{kv_heads} * head_dim; }
  int64_t half_block_elements() const { return block_tokens * token_elements(); }
  int64_t block_elements() const { return 2 * half_block_elements(); }
  // Offset of K of (block, row); V lies half_block_elements() further.
  int64_t KeyOffset(int32_t block, int row) const {
    return block * block_elements() + row * token_elements();
  }
  friend bool operator==(const KvLayout&, const KvLayout&) = default;
  int64_t block_bytes() const { return block_elements() * SizeOf(dtype); }
};

}  // namespace triptych::kernels
