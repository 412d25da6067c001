#pragma once

// The input vectors of a step: each token's comes from the embedding table, from the pool of visual
// tokens, or from the table at the id that an earlier step sampled and that the host does not know
// yet. Ids are checked here, because only here all of them are known. Bytes are widened or rounded
// (float32, bfloat16), otherwise moved. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// What `inputs` holds: an id, or one of these.
inline constexpr int32_t EmbedSlot(int64_t vocab_size, int64_t slot) {
  return static_cast<int32_t>(vocab_size + slot);
}
// The token at `index` of the ring of sampled tokens.
inline constexpr int32_t EmbedSampled(int32_t index) { return -2 - index; }

// Pointers are borrowed and lie in the memory of the stream's device. Strides count elements.
struct EmbedArgs {
  // [tokens]: in [0, vocab_size) a row of the table; vocab_size + slot: a slot of the pool;
  // -2 - index: the table's row of the token sampled[index].
  const int32_t* inputs = nullptr;
  int64_t tokens = 0;
  const void* table = nullptr;  // [vocab_size, width]
  int64_t vocab_size = 0;
  const void* pool = nullptr;  // [pool_slots, width]; may be null with 0 slots
  int64_t pool_slots = 0;
  int64_t pool_stride = 0;           // from slot to slot; 0 stands for width
  const int32_t* sampled = nullptr;  // [sampled_size]; may be null with 0
  int64_t sampled_size = 0;
  void* out = nullptr;  // [tokens, width]
  int64_t width = 0;
  // A token whose input names nothing gets zeros, and errors[row_of_token[token]] becomes 1 (it is
  // never cleared here). Both null: nobody is told.
  const int32_t* row_of_token = nullptr;  // [tokens], each in [0, rows of errors)
  int32_t* errors = nullptr;
  DType table_dtype = DType::kFloat32;
  DType pool_dtype = DType::kFloat32;
  DType dtype = DType::kFloat32;  // of out
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size or type, more words and slots than an int32 counts. Unimplemented: CUDA
// in a build without it. Internal: the launch failed.
absl::Status Embed(const EmbedArgs& args, const Stream& stream);

namespace internal {
// Checked arguments, strides filled in, tokens > 0. The CUDA one answers a cudaError_t.
void EmbedCpu(const EmbedArgs& args, ThreadPool* pool);
int EmbedCuda(const EmbedArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
