#pragma once

// Copies a token range of a sequence between the pages of some layers and one contiguous buffer:
// gather packs KV (or the visual tokens of an item, which lie in pages too) for a transfer, scatter
// unpacks it at the other end. Bytes are moved, never converted. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

struct PageCopyArgs {
  // Base of each layer's pool [num_blocks, halves, block_tokens, kv_heads, head_dim]: an array on
  // the host (read before the call returns) of pointers into the stream's device.
  absl::Span<void* const> layer_pages;
  int64_t num_blocks = 0;  // in each pool
  // The sequence's page table, in the memory of the stream's device: token t lies in
  // block_ids[t / block_tokens]. Only entries of the range are read.
  const int32_t* block_ids = nullptr;
  int64_t token_begin = 0;
  int64_t tokens = 0;
  KvLayout layout;
  // 2: K and V. 1: embeddings, where a block is block_tokens slots of kv_heads * head_dim values.
  int halves = 2;
  // [layers, halves, tokens, kv_heads, head_dim], contiguous, in the memory of the stream's
  // device. The CUDA side is fast where a token's row and all bases are multiples of 16 bytes.
  void* buffer = nullptr;
};

// Bytes of `buffer` for these sizes.
int64_t PageCopyBytes(const KvLayout& layout, int64_t layers, int64_t tokens, int halves = 2);

// Pages to buffer, and buffer to pages. Enqueue on a CUDA stream and do not synchronise; done on
// return on the CPU. InvalidArgument: a null pointer or a bad size; on the CPU also a block id
// outside the pool (nothing is written then). On CUDA such an id is not seen by the host: its
// tokens are not copied. Scatter: ids of the range must differ. Unimplemented: CUDA in a build
// without it. Internal: the launch failed.
absl::Status GatherPages(const PageCopyArgs& args, const Stream& stream);
absl::Status ScatterPages(const PageCopyArgs& args, const Stream& stream);

namespace internal {
enum class PageCopyDirection { kGather, kScatter };
// Checked arguments with at least one layer and token. The CUDA one answers a cudaError_t.
void PageCopyCpu(const PageCopyArgs& args, PageCopyDirection direction, ThreadPool* pool);
int PageCopyCuda(const PageCopyArgs& args, PageCopyDirection direction, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
