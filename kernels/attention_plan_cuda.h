#pragma once

// What a plan of attention keeps for CUDA: the cut of the chunks, on the device. For the CUDA sides
// of attention alone.

#include <cstdint>

#include "kernels/attention_plan.h"
#include "kernels/prefill_cut.h"

namespace triptych::kernels::internal {

struct CudaAttentionPlan {
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
