#pragma once

// How the causal attention of a step's chunks is cut for a device of many multiprocessors: tiles of
// queries, each with one query head, dealt out so that all workers end at about the same time.
// Pure arithmetic on the host; the arrays are what FlashInfer's persistent kernel reads.

#include <cstdint>
#include <vector>

#include "kernels/attention_plan.h"

namespace triptych::kernels {

// One block of int32: work_begin [workers + 1], then seven arrays of `works` each. Work i of worker
// w, for i in [work_begin[w], work_begin[w + 1]), is the tile of queries
// [tile[i] * tile_queries, + tile_queries) of a row, for one head.
struct PrefillCut {
  int32_t works = 0;
  int32_t workers = 0;
  std::vector<int32_t> block;

  // Where the arrays begin in `block`.
  int64_t work_begin() const { return 0; }
  int64_t tile() const { return At(0); }
  int64_t query_begin() const { return At(1); }  // of the row, in the batch
  int64_t page_begin() const { return At(2); }   // of the row, in the page table
  int64_t queries() const { return At(3); }      // of the row
  int64_t keys() const { return At(4); }         // that the row's last query sees
  int64_t head() const { return At(5); }
  int64_t row() const { return At(6); }

 private:
  int64_t At(int array) const { return workers + 1 + int64_t{array} * works; }
};

// Rows [first_row, rows.rows) of a checked batch; only its host arrays are read. Longest tiles
// first, each to the worker with the least to do so far (Graham, "Bounds on multiprocessing timing
// anomalies"). Reuses the memory of `cut`.
void CutPrefill(const AttentionRows& rows, int32_t first_row, int heads, int32_t tile_queries,
                int32_t workers, PrefillCut* cut);

}  // namespace triptych::kernels
