#pragma once

// A decoder-only language model over paged KV: a ragged step of prefill chunks and decode steps.
// Forward() only enqueues ops on the addresses that it is given, so a step can be captured in a
// CUDA graph; ids are checked in the ops. It samples nothing and owns no KV.
//
// On the CPU it is batch-invariant: a sequence's logits and KV have the same bits however it is
// chunked, whatever else is in the step, on any number of threads.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_layout.h"
#include "kernels/linear.h"
#include "kernels/rope_append.h"
#include "kernels/stream.h"
#include "models/config/model_config.h"
#include "models/family/model_spec.h"
#include "models/layers/load_layers.h"
#include "models/layers/weight_memory.h"
#include "models/weights/weight_source.h"

namespace triptych::models {

// The KV pools of all layers, each [num_blocks, 2, block_tokens, kv_heads, head_dim].
struct KvPools {
  kernels::KvLayout layout;
  int64_t num_blocks = 0;
  absl::Span<void* const> layers;
};

// The visual tokens that a step may read, [slots, hidden], of the type of activations.
struct VisualTokens {
  const void* data = nullptr;
  int64_t slots = 0;
};

// One step. Arrays are borrowed and lie in the memory of the stream's device.
struct DecoderBatch {
  int64_t tokens = 0;
  const int32_t* inputs = nullptr;     // [tokens]: ids, slots or sampled tokens (kernels/embed.h)
  const int32_t* positions = nullptr;  // [3, tokens]: rotary, rows t, h, w
  const int32_t* slots = nullptr;      // [tokens]: where K and V go; negative: nowhere
  const kernels::AttentionPlan* attention = nullptr;  // of its rows, for the pools' layout
  // Tokens of which logits are wanted, each in [0, tokens); all of them: in ascending order.
  int64_t logits_rows = 0;
  const int32_t* logits_tokens = nullptr;  // [logits_rows]
  // What earlier steps sampled, for inputs that name it.
  const int32_t* sampled = nullptr;
  int64_t sampled_size = 0;
  // An input that names nothing sets errors[row_of_token[token]] to 1. Null: nobody is told.
  const int32_t* row_of_token = nullptr;  // [tokens]
  int32_t* errors = nullptr;
};

class Decoder {
 public:
  // Places the language model of `weights`, which may be closed afterwards, in `memory`, which
  // outlives the decoder. Errors as LayerLoader.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const WeightSource& weights,
                                                       const ModelConfig& config,
                                                       const DecoderSpec& spec,
                                                       WeightMemory* memory);

  // Writes K and V of every token to its slot and float32 logits to `logits`
  // [logits_rows, vocab_size], in the stream's device memory. Takes WorkspaceBytes() of the
  // stream's workspace. Safe from any thread, each with its workspace. Errors as the ops:
  // INVALID_ARGUMENT for a batch that is none, INTERNAL for a launch that failed.
  absl::Status Forward(const DecoderBatch& batch, const KvPools& kv, const VisualTokens& visual,
                       float* logits, const kernels::Stream& stream) const;

  // The most that Forward() takes of a workspace.
  int64_t WorkspaceBytes(int64_t tokens, int64_t logits_rows) const;

  const ModelConfig& config() const { return config_; }

 private:
  struct Layer {
    const void* input_norm = nullptr;
    const void* attention_norm = nullptr;
    kernels::LinearWeights qkv, output, gate_up, down;
  };
  // Of one step, in the workspace.
  struct Activations;

  Decoder(const ModelConfig& config, base::DType dtype) : config_(config), dtype_(dtype) {}
  absl::Status LoadLayer(const LayerLoader& loader, const DecoderSpec& spec, int index);
  absl::Status Product(const kernels::LinearWeights& weights, kernels::LinearArgs args,
                       const kernels::Stream& stream) const;
  // A layer up to its attention, then what is left of it for `rows` of x and attention.
  absl::Status Attend(const DecoderBatch& batch, const KvPools& kv, int index,
                      const Activations& at, const kernels::Stream& stream) const;
  absl::Status FinishLayer(int index, int64_t rows, const Activations& at,
                           const kernels::Stream& stream) const;
  // x and attention of the tokens whose logits are wanted, in their order.
  absl::StatusOr<Activations> KeepWanted(const DecoderBatch& batch, const Activations& at,
                                         const kernels::Stream& stream) const;
  int64_t q_width() const { return int64_t{config_.num_attention_heads} * config_.head_dim; }
  int64_t qkv_width() const {
    return q_width() + int64_t{2} * config_.num_kv_heads * config_.head_dim;
  }
  int64_t inner() const { return layers_[0].down.inputs; }

  const ModelConfig config_;
  const base::DType dtype_;  // of activations
  PlacedTable embeddings_;   // [vocab_size, hidden]
  std::vector<Layer> layers_;
  const void* final_norm_ = nullptr;
  kernels::LinearWeights head_;
  kernels::RopeTable rope_;
};

}  // namespace triptych::models
