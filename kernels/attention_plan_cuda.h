#pragma once

// What a plan of attention keeps for CUDA: the cuts of the decode rows and of the chunks, on the
// device. For the CUDA sides of attention alone.

#include <cstdint>

#include "kernels/attention_plan.h"
#include "kernels/decode_attention.h"
#include "kernels/prefill_cut.h"

namespace triptych::kernels::internal {

// Its addresses and the size of a launch follow from the number of decode rows alone, so that a
// captured graph serves every plan of as many rows.
struct DecodeCut {
  DecodeAttentionChoice choice;
  int32_t used = 0;  // parts of a launch; 0: no decode rows
  // Room for `capacity` parts, their partial sums and counters.
  int64_t capacity = 0;
  DecodePart* pinned = nullptr;
  DecodePart* device = nullptr;
  float* partial = nullptr;
  int* arrived = nullptr;
};

struct CudaAttentionPlan {
  DecodeCut decode;
  PrefillCut cut;
  int32_t first_prefill_row = 0;
  int32_t first_prefill_token = 0;
  // Every chunk begins with its row's first token, so no KV but the batch's own is needed.
  bool fresh = false;
  // The cut's block, copied by every Make() that has chunks: `pinned` to `device`, `capacity` ints
  // each.
  int32_t* pinned = nullptr;
  int32_t* device = nullptr;
  int64_t capacity = 0;
};

// The plan's, which Make() has filled.
inline const CudaAttentionPlan& CudaPlanOf(const AttentionPlan& plan) {
  return *static_cast<const CudaAttentionPlan*>(plan.cuda().data);
}

}  // namespace triptych::kernels::internal
