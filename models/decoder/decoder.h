#pragma once

// The language model of Qwen2.5-VL on the CPU: a ragged step of prefill chunks and decode steps
// over paged KV. Batch-invariant: a sequence's logits and KV have the same bits however it is
// chunked, whatever else is in the step, on any number of threads. One thread at a time (scratch
// memory is reused). It samples nothing and owns no KV.

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_layout.h"
#include "kernels/linear.h"
#include "kernels/rope_append.h"
#include "kernels/stream.h"
#include "models/config/model_config.h"
#include "models/layers/load_layers.h"
#include "models/weights/checkpoint.h"

namespace triptych::models {

// Inputs [row_offset, + count) of a row are these vectors instead of the embedding table's.
struct InputVectors {
  int32_t row_offset = 0;
  int32_t count = 0;
  const float* vectors = nullptr;  // [count, hidden]
};

enum class Logits { kNone, kLastToken };

// Tokens [first_token, first_token + token_ids.size()) of one sequence. Everything is borrowed.
struct DecoderRow {
  int32_t first_token = 0;
  absl::Span<const int32_t> token_ids;
  // Rotary positions (t, h, w) of each token, three rows of token_ids.size().
  absl::Span<const int32_t> positions;
  std::vector<InputVectors> vectors;
  absl::Span<const int32_t> pages;
  Logits logits = Logits::kNone;
};

// The KV pools of all layers, each [num_blocks, 2, block_tokens, kv_heads, head_dim].
struct KvPools {
  kernels::KvLayout layout;
  int64_t num_blocks = 0;
  absl::Span<void* const> layers;
};

class Decoder {
 public:
  // Packs the language model of `checkpoint`, which may be closed afterwards.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const Checkpoint& checkpoint,
                                                       const ModelConfig& config);

  // Writes K and V of every token to its page and the logits of the rows that want them to
  // `logits` [wanting rows, vocab_size], in order. INVALID_ARGUMENT: a token id outside the
  // vocabulary, positions of another length, or pages too short or outside the pool.
  absl::Status Step(absl::Span<const DecoderRow> rows, const KvPools& kv, float* logits,
                    const kernels::Stream& stream);

  const ModelConfig& config() const { return config_; }

 private:
  struct Layer {
    std::vector<float> input_norm, attention_norm;
    PackedLinear qkv, output, gate_up, down;
  };

  explicit Decoder(const ModelConfig& config) : config_(config) {}
  absl::Status LoadLayer(const Checkpoint& checkpoint, int index);
  absl::Status CheckRow(const DecoderRow& row, const KvPools& kv) const;
  // Inputs, positions and slots of all rows, one after another.
  void GatherInputs(absl::Span<const DecoderRow> rows, const KvPools& kv);
  void GatherRow(const DecoderRow& row, int64_t at, const KvPools& kv);
  // The page tables of all rows, checked once for all layers.
  absl::Status PlanAttention(absl::Span<const DecoderRow> rows, const KvPools& kv,
                             const kernels::Stream& stream);
  void RunLayer(const KvPools& kv, int layer, const kernels::Stream& stream);
  int64_t qkv_width() const {
    return int64_t{config_.num_attention_heads + 2 * config_.num_kv_heads} * config_.head_dim;
  }

  const ModelConfig config_;
  std::vector<float> embeddings_;  // [vocab_size, hidden]
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  PackedLinear head_;
  kernels::RopeTable rope_;
  // Scratch of one step.
  int64_t tokens_ = 0;
  std::vector<float> x_, normed_, qkv_, attention_, gate_up_, inner_;
  std::vector<int32_t> positions_, slots_;
  std::vector<int32_t> query_begin_, first_token_, page_begin_, pages_;
  kernels::AttentionPlan plan_;
};

}  // namespace triptych::models
