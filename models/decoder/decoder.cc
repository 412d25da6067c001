#include "models/decoder/decoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/move_rows.h"
#include "kernels/workspace.h"

namespace triptych::models {

struct Decoder::Activations {
  void* x = nullptr;          // [tokens, hidden]
  void* qkv = nullptr;        // [tokens, qkv_width]
  void* attention = nullptr;  // [tokens, q_width]
  void* inner = nullptr;      // [tokens, inner]
};

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const WeightSource& weights,
                                                       const ModelConfig& config,
                                                       const DecoderSpec& spec,
                                                       WeightMemory* memory) {
  std::unique_ptr<Decoder> decoder(new Decoder(config, memory->dtype()));
  const LayerLoader loader(weights, memory);
  const std::string table = spec.prefix + "embed_tokens.weight";
  const bool tied = spec.head == table;
  ASSIGN_OR_RETURN(decoder->embeddings_, loader.Table(table, config.vocab_size, config.hidden_size,
                                                      tied ? &decoder->head_ : nullptr));
  if (!tied) {
    ASSIGN_OR_RETURN(decoder->head_,
                     loader.Matrix(spec.head, {config.vocab_size, config.hidden_size}));
  }
  ASSIGN_OR_RETURN(decoder->final_norm_,
                   loader.Vector(spec.prefix + "norm.weight", config.hidden_size));
  ASSIGN_OR_RETURN(decoder->rope_, kernels::MakeRopeTable(config.head_dim, config.rope_theta,
                                                          config.mrope_section));
  for (int i = 0; i < config.num_layers; ++i) {
    RETURN_IF_ERROR(decoder->LoadLayer(loader, spec, i));
  }
  return decoder;
}

absl::Status Decoder::LoadLayer(const LayerLoader& loader, const DecoderSpec& spec, int index) {
  const std::string prefix = absl::StrCat(spec.prefix, "layers.", index, ".");
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t kv_width = int64_t{config_.num_kv_heads} * config_.head_dim;
  const int64_t padded = loader.Padded(inner);
  Layer layer;
  ASSIGN_OR_RETURN(layer.input_norm, loader.Vector(prefix + "input_layernorm.weight", hidden));
  ASSIGN_OR_RETURN(layer.attention_norm,
                   loader.Vector(prefix + "post_attention_layernorm.weight", hidden));
  ASSIGN_OR_RETURN(layer.qkv, loader.Linear({{prefix + "self_attn.q_proj", q_width()},
                                             {prefix + "self_attn.k_proj", kv_width},
                                             {prefix + "self_attn.v_proj", kv_width}},
                                            {.inputs = hidden, .has_bias = spec.qkv_bias}));
  ASSIGN_OR_RETURN(layer.output,
                   loader.Linear({{prefix + "self_attn.o_proj", hidden}},
                                 {.inputs = q_width(), .has_bias = spec.output_bias}));
  ASSIGN_OR_RETURN(layer.gate_up, loader.Linear({{prefix + "mlp.gate_proj", inner, padded},
                                                 {prefix + "mlp.up_proj", inner, padded}},
                                                {.inputs = hidden, .has_bias = spec.mlp_bias}));
  ASSIGN_OR_RETURN(
      layer.down,
      loader.Linear({{prefix + "mlp.down_proj", hidden}},
                    {.inputs = inner, .padded_inputs = padded, .has_bias = spec.mlp_bias}));
  layers_.push_back(layer);
  return absl::OkStatus();
}

absl::Status Decoder::Product(const kernels::LinearWeights& weights, kernels::LinearArgs args,
                              const kernels::Stream& stream) const {
  args.norm_eps = config_.rms_norm_eps;
  args.dtype = args.y_dtype = dtype_;
  return kernels::Linear(weights, args, stream);
}

absl::Status Decoder::Attend(const DecoderBatch& batch, const KvPools& kv, int index,
                             const Activations& at, const kernels::Stream& stream) const {
  const Layer& layer = layers_[index];
  RETURN_IF_ERROR(Product(
      layer.qkv, {.x = at.x, .rows = batch.tokens, .y = at.qkv, .norm = layer.input_norm}, stream));
  return kernels::AppendAndAttend({.qkv = at.qkv,
                                   .out = at.attention,
                                   .heads = config_.num_attention_heads,
                                   .pool = kv.layers[index],
                                   .num_blocks = kv.num_blocks,
                                   .layout = kv.layout,
                                   .rope = &rope_,
                                   .positions = batch.positions,
                                   .slots = batch.slots,
                                   .plan = batch.attention,
                                   .dtype = dtype_},
                                  stream);
}

absl::Status Decoder::FinishLayer(int index, int64_t rows, const Activations& at,
                                  const kernels::Stream& stream) const {
  const Layer& layer = layers_[index];
  RETURN_IF_ERROR(Product(layer.output,
                          {.x = at.attention, .rows = rows, .y = at.x, .residual = at.x}, stream));
  RETURN_IF_ERROR(Product(layer.gate_up,
                          {.x = at.x,
                           .rows = rows,
                           .y = at.inner,
                           .norm = layer.attention_norm,
                           .activation = kernels::LinearActivation::kSwiGlu},
                          stream));
  return Product(layer.down, {.x = at.inner, .rows = rows, .y = at.x, .residual = at.x}, stream);
}

absl::StatusOr<Decoder::Activations> Decoder::KeepWanted(const DecoderBatch& batch,
                                                         const Activations& at,
                                                         const kernels::Stream& stream) const {
  if (batch.logits_rows == batch.tokens) return at;
  Activations wanted = at;
  const auto gather = [&](int64_t width, void** rows) {
    const void* const all = *rows;
    *rows = stream.workspace->Take(batch.logits_rows * width * base::SizeOf(dtype_));
    return kernels::GatherRows({.x = all,
                                .out = *rows,
                                .indices = batch.logits_tokens,
                                .rows = batch.logits_rows,
                                .indexed_rows = batch.tokens,
                                .width = width,
                                .dtype = dtype_},
                               stream);
  };
  RETURN_IF_ERROR(gather(config_.hidden_size, &wanted.x));
  RETURN_IF_ERROR(gather(q_width(), &wanted.attention));
  return wanted;
}

absl::Status Decoder::Forward(const DecoderBatch& batch, const KvPools& kv,
                              const VisualTokens& visual, float* logits,
                              const kernels::Stream& stream) const {
  if (batch.tokens == 0) return absl::OkStatus();
  CHECK_TRUE(stream.workspace != nullptr);
  const kernels::WorkspaceScope scope(stream.workspace);
  const int64_t size = base::SizeOf(dtype_), hidden = config_.hidden_size;
  const auto take = [&](int64_t rows, int64_t width) {
    return stream.workspace->Take(rows * width * size);
  };
  const Activations at{.x = take(batch.tokens, hidden),
                       .qkv = take(batch.tokens, qkv_width()),
                       .attention = take(batch.tokens, q_width()),
                       .inner = take(batch.tokens, inner())};
  RETURN_IF_ERROR(kernels::Embed({.inputs = batch.inputs,
                                  .tokens = batch.tokens,
                                  .table = embeddings_.data,
                                  .vocab_size = config_.vocab_size,
                                  .pool = visual.data,
                                  .pool_slots = visual.slots,
                                  .sampled = batch.sampled,
                                  .sampled_size = batch.sampled_size,
                                  .out = at.x,
                                  .width = hidden,
                                  .row_of_token = batch.row_of_token,
                                  .errors = batch.errors,
                                  .table_dtype = embeddings_.type,
                                  .pool_dtype = dtype_,
                                  .dtype = dtype_},
                                 stream));
  const int last = config_.num_layers - 1;
  for (int i = 0; i < last; ++i) {
    RETURN_IF_ERROR(Attend(batch, kv, i, at, stream));
    RETURN_IF_ERROR(FinishLayer(i, batch.tokens, at, stream));
  }
  // Behind the last attention a token matters to its own logits alone: the rest of a prompt ends
  // here.
  RETURN_IF_ERROR(Attend(batch, kv, last, at, stream));
  if (batch.logits_rows == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Activations wanted, KeepWanted(batch, at, stream));
  RETURN_IF_ERROR(FinishLayer(last, batch.logits_rows, wanted, stream));
  return kernels::Linear(head_,
                         {.x = wanted.x,
                          .rows = batch.logits_rows,
                          .y = logits,
                          .norm = final_norm_,
                          .norm_eps = config_.rms_norm_eps,
                          .dtype = dtype_,
                          .y_dtype = base::DType::kFloat32},
                         stream);
}

int64_t Decoder::WorkspaceBytes(int64_t tokens, int64_t logits_rows) const {
  using kernels::Workspace;
  const int64_t size = base::SizeOf(dtype_);
  int64_t bytes = Workspace::Aligned(logits_rows * config_.hidden_size * size) +
                  Workspace::Aligned(logits_rows * q_width() * size);
  for (const int64_t width : {int64_t{config_.hidden_size}, qkv_width(), q_width(), inner()}) {
    bytes += Workspace::Aligned(tokens * width * size);
  }
  static constexpr float kAnyNorm = 0;
  kernels::LinearArgs args{.norm = &kAnyNorm, .dtype = dtype_, .y_dtype = dtype_};
  int64_t ops = 0;
  for (const kernels::LinearWeights* weights :
       {&layers_[0].qkv, &layers_[0].output, &layers_[0].down, &layers_[0].gate_up, &head_}) {
    args.rows = weights == &head_ ? logits_rows : tokens;
    args.y_dtype = weights == &head_ ? base::DType::kFloat32 : dtype_;
    args.activation = weights == &layers_[0].gate_up ? kernels::LinearActivation::kSwiGlu
                                                     : kernels::LinearActivation::kNone;
    ops = std::max(ops, kernels::LinearWorkspaceBytes(*weights, args));
  }
  return bytes + ops;
}

}  // namespace triptych::models
