#pragma once

// Rows of a matrix picked or placed by index: the window order of merge units, the tokens whose
// logits are wanted. Bytes are moved, never converted. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// Pointers are borrowed and lie in the memory of the stream's device; `x` and `out` do not overlap.
// Strides count elements from row to row; 0 stands for `width`.
struct MoveRowsArgs {
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  const int32_t* indices = nullptr;  // [rows]
  int64_t rows = 0;
  // Rows of x (gather) or of out (scatter): what an index must lie below.
  int64_t indexed_rows = 0;
  int64_t width = 0;
  DType dtype = DType::kFloat32;
};

// GatherRows: out[i] = x[indices[i]], zeros where the index is outside. ScatterRows:
// out[indices[i]] = x[i]; an index outside is skipped, no index may come twice. Enqueue on a CUDA
// stream and do not synchronise; done on return on the CPU. InvalidArgument: a null pointer, a bad
// size or stride. Unimplemented: CUDA in a build without it. Internal: the launch failed.
absl::Status GatherRows(const MoveRowsArgs& args, const Stream& stream);
absl::Status ScatterRows(const MoveRowsArgs& args, const Stream& stream);

namespace internal {
enum class MoveRowsDirection { kGather, kScatter };
// Checked arguments with something to do, strides filled in. The CUDA one answers a cudaError_t.
void MoveRowsCpu(const MoveRowsArgs& args, MoveRowsDirection direction, ThreadPool* pool);
int MoveRowsCuda(const MoveRowsArgs& args, MoveRowsDirection direction, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
