#include "models/vision/vision_tower.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/activation.h"
#include "kernels/rope_append_angle.h"
#include "kernels/rotate.h"
#include "kernels/segment_attention.h"
#include "models/layers/load_layers.h"
#include "models/layers/row_ops.h"

namespace triptych::models {
namespace {

constexpr float kEpsilon = 1e-6f;
constexpr float kTheta = 10000.0f;

}  // namespace

absl::StatusOr<std::unique_ptr<VisionTower>> VisionTower::Load(const Checkpoint& checkpoint,
                                                               const VisionConfig& config) {
  std::unique_ptr<VisionTower> tower(new VisionTower(config));
  ASSIGN_OR_RETURN(tower->patch_embedding_,
                   LoadMatrix(checkpoint, "visual.patch_embed.proj.weight",
                              {config.hidden_size, config.in_channels, config.temporal_patch_size,
                               config.patch_size, config.patch_size}));
  for (int i = 0; i < config.depth; ++i) RETURN_IF_ERROR(tower->LoadBlock(checkpoint, i));
  const int64_t merged = int64_t{config.hidden_size} * config.merge_size * config.merge_size;
  ASSIGN_OR_RETURN(tower->merger_norm_,
                   LoadFloats(checkpoint, "visual.merger.ln_q.weight", {config.hidden_size}));
  ASSIGN_OR_RETURN(tower->merger_first_, LoadLinear(checkpoint, {{"visual.merger.mlp.0", merged}},
                                                    merged, HasBias::kYes));
  ASSIGN_OR_RETURN(tower->merger_second_,
                   LoadLinear(checkpoint, {{"visual.merger.mlp.2", config.out_hidden_size}}, merged,
                              HasBias::kYes));
  return tower;
}

absl::Status VisionTower::LoadBlock(const Checkpoint& checkpoint, int index) {
  const std::string prefix = absl::StrCat("visual.blocks.", index, ".");
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  Block block;
  ASSIGN_OR_RETURN(block.norm1, LoadFloats(checkpoint, prefix + "norm1.weight", {hidden}));
  ASSIGN_OR_RETURN(block.norm2, LoadFloats(checkpoint, prefix + "norm2.weight", {hidden}));
  ASSIGN_OR_RETURN(block.qkv, LoadLinear(checkpoint, {{prefix + "attn.qkv", 3 * hidden}}, hidden,
                                         HasBias::kYes));
  ASSIGN_OR_RETURN(block.projection,
                   LoadLinear(checkpoint, {{prefix + "attn.proj", hidden}}, hidden, HasBias::kYes));
  ASSIGN_OR_RETURN(
      block.gate_up,
      LoadLinear(checkpoint, {{prefix + "mlp.gate_proj", inner}, {prefix + "mlp.up_proj", inner}},
                 hidden, HasBias::kYes));
  ASSIGN_OR_RETURN(block.down, LoadLinear(checkpoint, {{prefix + "mlp.down_proj", hidden}}, inner,
                                          HasBias::kYes));
  blocks_.push_back(std::move(block));
  return absl::OkStatus();
}

absl::Status VisionTower::Encode(const float* patches, absl::Span<const base::Grid> grids,
                                 float* out, const kernels::Stream& stream) {
  for (const base::Grid& grid : grids) {
    if (grid.t < 1 || grid.h < 1 || grid.w < 1 || grid.h % config_.merge_size != 0 ||
        grid.w % config_.merge_size != 0) {
      return absl::InvalidArgumentError(absl::StrCat("grid ", grid.t, " x ", grid.h, " x ", grid.w,
                                                     " is empty or no multiple of ",
                                                     config_.merge_size));
    }
  }
  for (const base::Grid& grid : grids) {
    EncodeItem(patches, grid, out, stream);
    patches += grid.patches() * config_.patch_elements();
    out += TokensOf(grid) * config_.out_hidden_size;
  }
  return absl::OkStatus();
}

void VisionTower::EncodeItem(const float* patches, const base::Grid& grid, float* out,
                             const kernels::Stream& stream) {
  const WindowOrder order = OrderByWindow(grid, config_);
  const int64_t hidden = config_.hidden_size;
  const int64_t unit_floats = hidden * config_.merge_size * config_.merge_size;
  num_patches_ = grid.patches();
  x_.resize(num_patches_ * hidden);
  normed_.resize(num_patches_ * hidden);
  qkv_.resize(num_patches_ * 3 * hidden);
  attention_.resize(num_patches_ * hidden);
  gate_up_.resize(num_patches_ * 2 * config_.intermediate_size);
  inner_.resize(num_patches_ * config_.intermediate_size);
  PrepareRotation(order);
  Apply(patch_embedding_, {.x = patches, .rows = num_patches_, .y = normed_.data()}, stream);
  for (size_t i = 0; i < order.unit_at.size(); ++i) {
    std::memcpy(&x_[i * unit_floats], &normed_[order.unit_at[i] * unit_floats],
                unit_floats * sizeof(float));
  }
  for (int i = 0; i < config_.depth; ++i) RunBlock(i, order, stream);
  Merge(order, out, stream);
}

void VisionTower::PrepareRotation(const WindowOrder& order) {
  // Half of a head's frequencies turn with the row, half with the column.
  const int half = config_.head_dim() / 2, quarter = half / 2;
  const int32_t side = 1 + std::max(*std::max_element(order.rows.begin(), order.rows.end()),
                                    *std::max_element(order.columns.begin(), order.columns.end()));
  std::vector<float> cosines(side * quarter), sines(side * quarter);
  for (int i = 0; i < quarter; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(half);
    const float frequency =
        1.0f / static_cast<float>(std::pow(double{kTheta}, static_cast<double>(exponent)));
    for (int32_t position = 0; position < side; ++position) {
      const auto turn = kernels::RopeSineCosine(static_cast<float>(position) * frequency);
      cosines[position * quarter + i] = turn.cosine;
      sines[position * quarter + i] = turn.sine;
    }
  }
  cosine_.resize(num_patches_ * half);
  sine_.resize(num_patches_ * half);
  for (int64_t patch = 0; patch < num_patches_; ++patch) {
    const int32_t row = order.rows[patch] * quarter, column = order.columns[patch] * quarter;
    for (int i = 0; i < quarter; ++i) {
      cosine_[patch * half + i] = cosines[row + i];
      sine_[patch * half + i] = sines[row + i];
      cosine_[patch * half + quarter + i] = cosines[column + i];
      sine_[patch * half + quarter + i] = sines[column + i];
    }
  }
}

void VisionTower::RotateQueriesAndKeys(const kernels::Stream& stream) {
  CHECK_OK(kernels::Rotate({.x = qkv_.data(),
                            .x_stride = int64_t{3} * config_.hidden_size,
                            .tokens = num_patches_,
                            .heads = 2 * config_.num_heads,
                            .head_dim = config_.head_dim(),
                            .cosines = cosine_.data(),
                            .sines = sine_.data()},
                           stream));
}

void VisionTower::RunBlock(int index, const WindowOrder& order, const kernels::Stream& stream) {
  const Block& block = blocks_[index];
  const std::vector<int>& full = config_.fullatt_block_indexes;
  const bool whole_frames = std::find(full.begin(), full.end(), index) != full.end();
  const int64_t rows = num_patches_;
  NormRows(x_.data(), block.norm1, kEpsilon, rows, normed_.data(), stream);
  Apply(block.qkv, {.x = normed_.data(), .rows = rows, .y = qkv_.data()}, stream);
  RotateQueriesAndKeys(stream);
  CHECK_OK(kernels::SegmentAttention(
      {.qkv = qkv_.data(),
       .out = attention_.data(),
       .heads = config_.num_heads,
       .head_dim = config_.head_dim(),
       .offsets = whole_frames ? order.frame_offsets : order.window_offsets},
      stream));
  Apply(block.projection,
        {.x = attention_.data(), .rows = rows, .y = x_.data(), .residual = x_.data()}, stream);
  NormRows(x_.data(), block.norm2, kEpsilon, rows, normed_.data(), stream);
  Apply(block.gate_up, {.x = normed_.data(), .rows = rows, .y = gate_up_.data()}, stream);
  CHECK_OK(kernels::SwiGlu({.gate_up = gate_up_.data(),
                            .out = inner_.data(),
                            .rows = rows,
                            .n = config_.intermediate_size},
                           stream));
  Apply(block.down, {.x = inner_.data(), .rows = rows, .y = x_.data(), .residual = x_.data()},
        stream);
}

void VisionTower::Merge(const WindowOrder& order, float* out, const kernels::Stream& stream) {
  const auto units = static_cast<int64_t>(order.unit_at.size());
  const int64_t width = config_.out_hidden_size;
  NormRows(x_.data(), merger_norm_, kEpsilon, num_patches_, normed_.data(), stream);
  Apply(merger_first_, {.x = normed_.data(), .rows = units, .y = attention_.data()}, stream);
  CHECK_OK(kernels::Gelu({.x = attention_.data(), .count = units * merger_first_.outputs}, stream));
  std::vector<float> merged(units * width);
  Apply(merger_second_, {.x = attention_.data(), .rows = units, .y = merged.data()}, stream);
  for (int64_t i = 0; i < units; ++i) {
    std::memcpy(out + order.unit_at[i] * width, &merged[i * width], width * sizeof(float));
  }
}

}  // namespace triptych::models
