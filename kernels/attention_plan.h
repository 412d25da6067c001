#pragma once

// What attention over paged KV needs to know of a step, prepared once and used by every layer: the
// checked page tables, and how the work is cut (on the CPU a list of slices, on CUDA the split of
// the KV). One thread; a plan belongs to one step at a time, and Make() reuses its memory.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// A ragged batch over paged KV. Queries [query_begin[r], query_begin[r + 1]) of the batch are
// tokens token_begin[r] and the following of row r's sequence, whose KV up to and with themselves
// lies in pages[page_begin[r]] .. pages[page_begin[r + 1] - 1]. Rows [0, decode_rows) have exactly
// one query.
struct AttentionRows {
  // The same arrays on the host and in the device's memory (equal pointers on the CPU). Borrowed:
  // the host's during Make(), the device's as long as the plan is used.
  struct Arrays {
    const int32_t* query_begin = nullptr;  // [rows + 1]
    const int32_t* token_begin = nullptr;  // [rows]
    const int32_t* page_begin = nullptr;   // [rows + 1]
    const int32_t* pages = nullptr;        // [page_begin[rows]]
  };
  int32_t rows = 0;
  int32_t decode_rows = 0;
  // Tokens that a decode row sees, about, which the cut of all of them is chosen for; 0: in the
  // mean as many as they see. Whoever captured a launch keeps to the choice with it.
  int64_t decode_context = 0;
  int64_t tokens = 0;  // query_begin[rows]
  int64_t pages = 0;   // page_begin[rows]
  Arrays host;
  Arrays device;
};

class AttentionPlan {
 public:
  AttentionPlan();
  ~AttentionPlan();
  AttentionPlan(const AttentionPlan&) = delete;
  AttentionPlan& operator=(const AttentionPlan&) = delete;

  // InvalidArgument: arrays that do not ascend or do not match their counts, a decode row of other
  // than one query, a page table that is too short or names a block outside the pool, heads that
  // are no multiple of kv_heads. Rows may be 0. On CUDA it may copy to the device in stream order.
  absl::Status Make(const AttentionRows& rows, const KvLayout& layout, int64_t num_blocks,
                    int heads, const Stream& stream);

  const AttentionRows& rows() const { return rows_; }
  const KvLayout& layout() const { return layout_; }
  int64_t num_blocks() const { return num_blocks_; }
  int heads() const { return heads_; }

  // The CPU's unit of work: queries [query_begin, + queries) of one row, query heads
  // [head_begin, + heads) of one KV head.
  struct Slice {
    int32_t row = 0;
    int32_t query_begin = 0, queries = 0;  // in the row
    int32_t kv_head = 0, head_begin = 0, heads = 0;
  };
  absl::Span<const Slice> slices() const { return slices_; }

  // What the CUDA side keeps beside it: made by its first Make(), freed by `free`.
  struct CudaPart {
    void* data = nullptr;
    void (*free)(void*) = nullptr;
  };
  CudaPart& cuda() { return cuda_; }
  const CudaPart& cuda() const { return cuda_; }

 private:
  absl::Status Check() const;
  void CutForCpu(int threads);

  AttentionRows rows_;
  KvLayout layout_;
  int64_t num_blocks_ = 0;
  int heads_ = 0;
  std::vector<Slice> slices_;
  CudaPart cuda_;
};

namespace internal {
// Called at the end of a checked Make() on CUDA; answers a cudaError_t.
int PlanAttentionCuda(AttentionPlan* plan, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
