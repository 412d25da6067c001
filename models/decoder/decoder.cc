#include "models/decoder/decoder.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "models/layers/load_layers.h"
#include "models/layers/row_ops.h"

namespace triptych::models {
absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const Checkpoint& checkpoint,
                                                       const ModelConfig& config) {
  std::unique_ptr<Decoder> decoder(new Decoder(config));
  const std::vector<int64_t> table = {config.vocab_size, config.hidden_size};
  ASSIGN_OR_RETURN(decoder->embeddings_,
                   LoadFloats(checkpoint, "model.embed_tokens.weight", table));
  const std::string head =
      config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  ASSIGN_OR_RETURN(decoder->head_, LoadMatrix(checkpoint, head, table));
  ASSIGN_OR_RETURN(decoder->final_norm_,
                   LoadFloats(checkpoint, "model.norm.weight", {config.hidden_size}));
  ASSIGN_OR_RETURN(decoder->rope_, kernels::MakeRopeTable(config.head_dim, config.rope_theta,
                                                          config.mrope_section));
  for (int i = 0; i < config.num_layers; ++i) RETURN_IF_ERROR(decoder->LoadLayer(checkpoint, i));
  return decoder;
}

absl::Status Decoder::LoadLayer(const Checkpoint& checkpoint, int index) {
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t q_width = int64_t{config_.num_attention_heads} * config_.head_dim;
  const int64_t kv_width = int64_t{config_.num_kv_heads} * config_.head_dim;
  Layer layer;
  ASSIGN_OR_RETURN(layer.input_norm,
                   LoadFloats(checkpoint, prefix + "input_layernorm.weight", {hidden}));
  ASSIGN_OR_RETURN(layer.attention_norm,
                   LoadFloats(checkpoint, prefix + "post_attention_layernorm.weight", {hidden}));
  ASSIGN_OR_RETURN(layer.qkv, LoadLinear(checkpoint,
                                         {{prefix + "self_attn.q_proj", q_width},
                                          {prefix + "self_attn.k_proj", kv_width},
                                          {prefix + "self_attn.v_proj", kv_width}},
                                         hidden, HasBias::kYes));
  ASSIGN_OR_RETURN(layer.output, LoadLinear(checkpoint, {{prefix + "self_attn.o_proj", hidden}},
                                            q_width, HasBias::kNo));
  ASSIGN_OR_RETURN(
      layer.gate_up,
      LoadLinear(checkpoint, {{prefix + "mlp.gate_proj", inner}, {prefix + "mlp.up_proj", inner}},
                 hidden, HasBias::kNo));
  ASSIGN_OR_RETURN(layer.down, LoadLinear(checkpoint, {{prefix + "mlp.down_proj", hidden}}, inner,
                                          HasBias::kNo));
  layers_.push_back(std::move(layer));
  return absl::OkStatus();
}

absl::Status Decoder::CheckRow(const DecoderRow& row, const KvPools& kv) const {
  const auto count = static_cast<int64_t>(row.token_ids.size());
  if (count == 0 || static_cast<int64_t>(row.positions.size()) != 3 * count) {
    return absl::InvalidArgumentError(
        absl::StrCat("a row of ", count, " tokens has ", row.positions.size(), " positions"));
  }
  for (int32_t id : row.token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is not in [0, ", config_.vocab_size, ")"));
    }
  }
  const int64_t needed =
      (row.first_token + count + kv.layout.block_tokens - 1) / kv.layout.block_tokens;
  if (row.first_token < 0 || static_cast<int64_t>(row.pages.size()) < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat(row.pages.size(), " pages, ", needed, " needed"));
  }
  for (int32_t page : row.pages.subspan(0, needed)) {
    if (page < 0 || page >= kv.num_blocks) {
      return absl::InvalidArgumentError(absl::StrCat("page ", page, " is outside the pool"));
    }
  }
  for (const InputVectors& part : row.vectors) {
    if (part.row_offset < 0 || part.count < 0 || part.row_offset + int64_t{part.count} > count) {
      return absl::InvalidArgumentError("input vectors outside their row");
    }
  }
  return absl::OkStatus();
}

void Decoder::GatherRow(const DecoderRow& row, int64_t at, const KvPools& kv) {
  const int64_t hidden = config_.hidden_size;
  const auto count = static_cast<int64_t>(row.token_ids.size());
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(&x_[(at + i) * hidden], &embeddings_[row.token_ids[i] * hidden],
                hidden * sizeof(float));
    for (int axis = 0; axis < 3; ++axis) {
      positions_[axis * tokens_ + at + i] = row.positions[axis * count + i];
    }
    const int64_t token = row.first_token + i;
    slots_[at + i] = static_cast<int32_t>(row.pages[token / kv.layout.block_tokens] *
                                              int64_t{kv.layout.block_tokens} +
                                          token % kv.layout.block_tokens);
  }
  for (const InputVectors& part : row.vectors) {
    std::memcpy(&x_[(at + part.row_offset) * hidden], part.vectors,
                part.count * hidden * sizeof(float));
  }
}

void Decoder::GatherInputs(absl::Span<const DecoderRow> rows, const KvPools& kv) {
  tokens_ = 0;
  for (const DecoderRow& row : rows) tokens_ += static_cast<int64_t>(row.token_ids.size());
  x_.resize(tokens_ * config_.hidden_size);
  normed_.resize(tokens_ * config_.hidden_size);
  qkv_.resize(tokens_ * qkv_width());
  attention_.resize(tokens_ * config_.num_attention_heads * config_.head_dim);
  gate_up_.resize(tokens_ * 2 * config_.intermediate_size);
  inner_.resize(tokens_ * config_.intermediate_size);
  positions_.resize(3 * tokens_);
  slots_.resize(tokens_);
  int64_t at = 0;
  for (const DecoderRow& row : rows) {
    GatherRow(row, at, kv);
    at += static_cast<int64_t>(row.token_ids.size());
  }
}

absl::Status Decoder::PlanAttention(absl::Span<const DecoderRow> rows, const KvPools& kv,
                                    const kernels::Stream& stream) {
  query_begin_.assign(1, 0);
  page_begin_.assign(1, 0);
  first_token_.clear();
  pages_.clear();
  for (const DecoderRow& row : rows) {
    query_begin_.push_back(query_begin_.back() + static_cast<int32_t>(row.token_ids.size()));
    first_token_.push_back(row.first_token);
    pages_.insert(pages_.end(), row.pages.begin(), row.pages.end());
    page_begin_.push_back(static_cast<int32_t>(pages_.size()));
  }
  const kernels::AttentionRows::Arrays arrays = {query_begin_.data(), first_token_.data(),
                                                 page_begin_.data(), pages_.data()};
  return plan_.Make({.rows = static_cast<int32_t>(rows.size()),
                     .tokens = tokens_,
                     .pages = static_cast<int64_t>(pages_.size()),
                     .host = arrays,
                     .device = arrays},
                    kv.layout, kv.num_blocks, config_.num_attention_heads, stream);
}

void Decoder::RunLayer(const KvPools& kv, int index, const kernels::Stream& stream) {
  const Layer& layer = layers_[index];
  NormRows(x_.data(), layer.input_norm, config_.rms_norm_eps, tokens_, normed_.data(), stream);
  Apply(layer.qkv, {.x = normed_.data(), .rows = tokens_, .y = qkv_.data()}, stream);
  CHECK_OK(kernels::AppendAndAttend({.qkv = qkv_.data(),
                                     .out = attention_.data(),
                                     .heads = config_.num_attention_heads,
                                     .pool = kv.layers[index],
                                     .num_blocks = kv.num_blocks,
                                     .layout = kv.layout,
                                     .rope = &rope_,
                                     .positions = positions_.data(),
                                     .slots = slots_.data(),
                                     .plan = &plan_},
                                    stream));
  Apply(layer.output,
        {.x = attention_.data(), .rows = tokens_, .y = x_.data(), .residual = x_.data()}, stream);
  NormRows(x_.data(), layer.attention_norm, config_.rms_norm_eps, tokens_, normed_.data(), stream);
  Apply(layer.gate_up, {.x = normed_.data(), .rows = tokens_, .y = gate_up_.data()}, stream);
  CHECK_OK(kernels::SwiGlu({.gate_up = gate_up_.data(),
                            .out = inner_.data(),
                            .rows = tokens_,
                            .n = config_.intermediate_size},
                           stream));
  Apply(layer.down, {.x = inner_.data(), .rows = tokens_, .y = x_.data(), .residual = x_.data()},
        stream);
}

absl::Status Decoder::Step(absl::Span<const DecoderRow> rows, const KvPools& kv, float* logits,
                           const kernels::Stream& stream) {
  for (const DecoderRow& row : rows) RETURN_IF_ERROR(CheckRow(row, kv));
  if (rows.empty()) return absl::OkStatus();
  GatherInputs(rows, kv);
  RETURN_IF_ERROR(PlanAttention(rows, kv, stream));
  for (int i = 0; i < config_.num_layers; ++i) RunLayer(kv, i, stream);
  const int64_t hidden = config_.hidden_size;
  int64_t end = 0, wanted = 0;
  for (const DecoderRow& row : rows) {
    end += static_cast<int64_t>(row.token_ids.size());
    if (row.logits == Logits::kNone) continue;
    // In place: row `wanted` never lies behind the token that it takes.
    std::memmove(&x_[wanted++ * hidden], &x_[(end - 1) * hidden], hidden * sizeof(float));
  }
  NormRows(x_.data(), final_norm_, config_.rms_norm_eps, wanted, normed_.data(), stream);
  Apply(head_, {.x = normed_.data(), .rows = wanted, .y = logits}, stream);
  return absl::OkStatus();
}

}  // namespace triptych::models
