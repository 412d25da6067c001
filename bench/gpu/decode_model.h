#pragma once

// A decode step of a Qwen2.5-VL language model on random weights, as the engine runs it: embedding,
// layers, head and arg-max in one graph, tokens fed back on the device. For benchmarks: it owns its
// memory until the process ends and stops the process on an error.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/decode_attention.h"
#include "kernels/linear_decode.h"
#include "kernels/rope_append.h"

namespace triptych::bench {

struct ModelShape {
  std::string name;
  int layers, hidden, heads, kv_heads, mlp, vocab;
  int64_t qkv() const { return (heads + 2 * kv_heads) * int64_t{128}; }
  // Bytes that a step must read: language layers and head.
  int64_t weight_bytes() const;
  int64_t kv_bytes_per_token() const { return int64_t{layers} * 2 * kv_heads * 128 * 2; }
};
ModelShape Shape7B();
ModelShape Shape3B();

enum DecodeOp { kQkv, kO, kGateUp, kDown, kHead, kNumOps };
inline constexpr const char* kOpNames[] = {"qkv", "o", "gate_up", "down", "head"};

struct LayerWeights {
  void *qkv, *qkv_bias, *o, *gate_up, *down, *attention_norm, *mlp_norm;
};

// What of a step the tuner may choose.
struct StepChoices {
  kernels::DecodeLinearChoice linear[kNumOps];
  kernels::DecodeAttentionChoice attention;
  bool pdl = true;
};

class DecodeModel {
 public:
  DecodeModel(const ModelShape& shape, int max_rows, int64_t max_tokens);

  // Rows of these lengths, the new token included, on shuffled pages; plans the attention.
  void SetRows(const std::vector<int32_t>& lengths, const StepChoices& choices);
  void Enqueue(const StepChoices& choices, cudaStream_t stream);
  // Parts of it, for checks and for times alone.
  kernels::DecodeLinearArgs Linear(DecodeOp op, int layer, int rows) const;
  void EnqueueLinear(DecodeOp op, int layer, const StepChoices& choices, cudaStream_t stream);
  void EnqueueAttention(int layer, const StepChoices& choices, cudaStream_t stream);
  void EnqueueTail(bool pdl, cudaStream_t stream);
  int64_t OpBytes(DecodeOp op) const;

  const ModelShape& shape() const { return shape_; }
  int rows() const { return rows_; }
  int sm_count() const { return sm_count_; }
  const std::vector<int32_t>& lengths() const { return lengths_; }
  const std::vector<int32_t>& host_pages() const { return host_pages_; }
  const std::vector<int32_t>& host_page_begin() const { return host_page_begin_; }
  void* pool(int layer) const { return pools_[layer]; }
  int64_t pool_bytes() const;
  const kernels::RopeTable& rope() const { return rope_; }
  // Buffers of a step.
  void *x = nullptr, *qkv = nullptr, *attention = nullptr, *mlp = nullptr;
  float* logits = nullptr;
  int32_t* tokens = nullptr;

 private:
  void* Random(int64_t elements, float scale, float offset);

  ModelShape shape_;
  int max_rows_;
  int sm_count_ = 0;
  uint32_t seed_ = 1;
  int rows_ = 0;
  int capacity_ = 0;
  std::vector<int32_t> lengths_, host_pages_, host_page_begin_;
  std::vector<LayerWeights> layers_;
  std::vector<void*> pools_;
  void *head_ = nullptr, *embedding_ = nullptr, *norm_ = nullptr;
  int64_t num_blocks_ = 0;
  kernels::RopeTable rope_;
  int32_t *positions_ = nullptr, *slots_ = nullptr, *token_begin_ = nullptr;
  int32_t *page_begin_ = nullptr, *pages_ = nullptr;
  kernels::DecodePart* parts_ = nullptr;
  float* partial_ = nullptr;
  int* arrived_ = nullptr;
  uint64_t* best_ = nullptr;
  int* best_arrived_ = nullptr;
};

}  // namespace triptych::bench
