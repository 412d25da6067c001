#pragma once

// Attention of rows that have one query each, over pages, on CUDA: rotary embedding of the new
// token, its K and V appended to its page, and its attention to everything before it, in one
// launch. The work is cut by a plan that the host makes once a step and every layer uses: parts of
// a row's pages, so that rows of any lengths fill the device evenly. The grid depends on the plan's
// capacity alone, so a captured graph serves every plan. No CUDA header; interface of kernels/
// alone.

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/rope_append.h"

namespace triptych::kernels {

inline constexpr int kMaxDecodeParts = 256;      // of one row
inline constexpr int kDecodeAttentionWarps = 4;  // of a block

// Some pages of a row; the last part has the row's newest token. All that a block needs to begin,
// so that its first pages are not at the end of a chain of loads.
struct DecodePart {
  int32_t row = -1;        // below 0: nothing to do
  int32_t first_page = 0;  // where its page ids begin in the step's list
  int32_t pages = 0;
  int32_t tokens = 0;  // in the last of them if the newest token is there, else 0
  int32_t parts = 0;   // of the row
  int32_t slot = 0;    // where this part's results lie; those of the row's others beside it
  int32_t first_slot = 0;
  int32_t unused = 0;
};

// The blocks of one kernel and how they share a row: fixed for a captured graph.
struct DecodeAttentionChoice {
  int cluster = 1;  // blocks that share a part: 1, 2, 4 or 8
  int target = 66;  // parts that fill the device
  // Begins beside the last blocks of its predecessor. Saves a launch's latency; but what is still
  // there takes room, so that the blocks crowd on the multiprocessors that were free first.
  bool beside = true;
  bool early = true;  // the next kernel may start as soon as this one has seen its predecessor end
};

// Cuts rows of `lengths` tokens (the new one included; 0: no such row) into at most parts.size()
// parts of similar size; unused parts are cleared. `page_begin` [rows + 1] as the step's list of
// pages has it. parts.size() >= lengths.size() (CHECKed).
void PlanDecodeParts(absl::Span<const int32_t> lengths, absl::Span<const int32_t> page_begin,
                     int block_tokens, const DecodeAttentionChoice& choice,
                     absl::Span<DecodePart> parts);

// Pointers lie on the device.
struct DecodeAttentionArgs {
  const void* qkv = nullptr;  // [rows, heads + 2 kv_heads, head_dim] bf16, left as it is
  int64_t qkv_stride = 0;
  void* out = nullptr;  // [rows, heads, head_dim] bf16
  int64_t out_stride = 0;
  int heads = 0;         // heads / kv_heads <= 8
  void* pool = nullptr;  // this layer's pages, bf16
  int64_t num_blocks = 0;
  KvLayout layout;                     // block_tokens 16, head_dim 128
  const RopeTable* rope = nullptr;     // on the host
  const int32_t* positions = nullptr;  // [3, tokens]
  int64_t positions_stride = 0;
  const int32_t* slots = nullptr;  // [rows]; below 0: not stored
  const int32_t* pages = nullptr;
  const DecodePart* parts = nullptr;  // [capacity]
  int capacity = 0;
  float* partial = nullptr;  // DecodePartialBytes
  int* arrived = nullptr;    // [rows, kv_heads], zeros before the first use; left as zeros
};

// Whether the kernel knows this shape: bf16 pages of 16 tokens, heads of 128, up to 8 to a KV head.
bool DecodeAttentionServes(const KvLayout& layout, int heads);
int64_t DecodePartialBytes(int capacity, int kv_heads);

namespace internal {
// Enqueues; answers a cudaError_t. `pdl` as in linear_decode.h.
int DecodeAttentionCuda(const DecodeAttentionArgs& args, const DecodeAttentionChoice& choice,
                        bool pdl, void* stream);
}  // namespace internal

}  // namespace triptych::kernels
