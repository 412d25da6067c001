#pragma once

// Forwards of decode steps as captured CUDA graphs, one a batch size ("bucket"): a replay costs the
// host one launch where the forward itself would cost hundreds. A batch runs in the smallest bucket
// that holds it, padded. The arrays of all buckets lie at the same addresses. One thread.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace triptych::engine {

class DecodeGraphs {
 public:
  // The batch sizes that are captured, largest first.
  static std::vector<int32_t> Buckets(int32_t max_rows);
  // Captures what `enqueue(rows)` puts on `stream` (a cudaStream_t), for each bucket up to
  // `max_rows`, the largest first: it needs the most memory. INTERNAL when a capture fails.
  static absl::StatusOr<std::unique_ptr<DecodeGraphs>> Capture(
      int32_t max_rows, void* stream, absl::FunctionRef<absl::Status(int32_t rows)> enqueue);
  ~DecodeGraphs();

  // The smallest bucket of at least `rows`; 0 when there is none.
  int32_t BucketFor(int32_t rows) const;
  // Enqueues the forward of `bucket` on `stream`.
  absl::Status Launch(int32_t bucket, void* stream) const;

 private:
  struct Graph {
    int32_t rows = 0;
    void* executable = nullptr;  // cudaGraphExec_t
  };
  DecodeGraphs() = default;
  std::vector<Graph> graphs_;  // ascending
};

}  // namespace triptych::engine
