#include "models/vision/vision_tower.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/move_rows.h"
#include "kernels/rms_norm.h"
#include "kernels/segment_attention.h"
#include "kernels/workspace.h"

namespace triptych::models {
namespace {

kernels::PixelTable PixelsOf(const PreprocessorConfig& preprocessor) {
  float mean[3], deviation[3];
  std::copy(preprocessor.mean.begin(), preprocessor.mean.end(), mean);
  std::copy(preprocessor.std.begin(), preprocessor.std.end(), deviation);
  return kernels::MakePixelTable(mean, deviation);
}

}  // namespace

// What one step of the tower needs is dead in the next, so that buffers serve twice: patches lie
// where gate_up's result will, embedded patches and merged units where attention's will.
struct VisionTower::Activations {
  void* x = nullptr;          // [patches, hidden]
  void* qkv = nullptr;        // [patches, 3 hidden]
  void* attention = nullptr;  // [patches, hidden]
  void* inner = nullptr;      // [patches, max(inner, patch_elements)]
};

VisionTower::VisionTower(const ModelConfig& config, const TowerSpec& spec, base::DType dtype)
    : config_(config.vision), spec_(spec), dtype_(dtype), pixels_(PixelsOf(config.preprocessor)) {}

absl::StatusOr<std::unique_ptr<VisionTower>> VisionTower::Load(const WeightSource& weights,
                                                               const ModelConfig& model,
                                                               const TowerSpec& spec,
                                                               WeightMemory* memory) {
  const VisionConfig& config = model.vision;
  std::unique_ptr<VisionTower> tower(new VisionTower(model, spec, memory->dtype()));
  const LayerLoader loader(weights, memory);
  ASSIGN_OR_RETURN(tower->patch_embedding_, loader.Matrix(spec.prefix + "patch_embed.proj.weight",
                                                          {config.hidden_size, config.in_channels,
                                                           config.temporal_patch_size,
                                                           config.patch_size, config.patch_size}));
  for (int i = 0; i < config.depth; ++i) RETURN_IF_ERROR(tower->LoadBlock(loader, i));
  const int64_t merged = config.hidden_size * tower->unit_patches();
  const LayerShape shape{.inputs = merged, .has_bias = spec.merger_bias};
  ASSIGN_OR_RETURN(tower->merger_norm_,
                   loader.Vector(spec.prefix + "merger.ln_q.weight", config.hidden_size));
  ASSIGN_OR_RETURN(tower->merger_first_,
                   loader.Linear({{spec.prefix + "merger.mlp.0", merged}}, shape));
  ASSIGN_OR_RETURN(tower->merger_second_,
                   loader.Linear({{spec.prefix + "merger.mlp.2", config.out_hidden_size}}, shape));
  return tower;
}

absl::Status VisionTower::LoadBlock(const LayerLoader& loader, int index) {
  const std::string prefix = absl::StrCat(spec_.prefix, "blocks.", index, ".");
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int64_t padded = loader.Padded(inner);
  Block block;
  ASSIGN_OR_RETURN(block.norm1, loader.Vector(prefix + "norm1.weight", hidden));
  ASSIGN_OR_RETURN(block.norm2, loader.Vector(prefix + "norm2.weight", hidden));
  ASSIGN_OR_RETURN(block.qkv, loader.Linear({{prefix + "attn.qkv", 3 * hidden}},
                                            {.inputs = hidden, .has_bias = spec_.qkv_bias}));
  ASSIGN_OR_RETURN(block.projection,
                   loader.Linear({{prefix + "attn.proj", hidden}},
                                 {.inputs = hidden, .has_bias = spec_.output_bias}));
  ASSIGN_OR_RETURN(block.gate_up, loader.Linear({{prefix + "mlp.gate_proj", inner, padded},
                                                 {prefix + "mlp.up_proj", inner, padded}},
                                                {.inputs = hidden, .has_bias = spec_.mlp_bias}));
  ASSIGN_OR_RETURN(
      block.down,
      loader.Linear({{prefix + "mlp.down_proj", hidden}},
                    {.inputs = inner, .padded_inputs = padded, .has_bias = spec_.mlp_bias}));
  blocks_.push_back(block);
  return absl::OkStatus();
}

absl::Status VisionTower::Embed(absl::Span<const VisionFrames> items, const VisionBatch& batch,
                                const Activations& at, const kernels::Stream& stream) const {
  int64_t first = 0;
  for (const VisionFrames& item : items) {
    auto* out =
        static_cast<uint8_t*>(at.inner) + first * config_.patch_elements() * base::SizeOf(dtype_);
    RETURN_IF_ERROR(kernels::Patchify({.frames = item.frames,
                                       .num_frames = item.num_frames,
                                       .grid = item.grid,
                                       .patch_size = config_.patch_size,
                                       .temporal_patch_size = config_.temporal_patch_size,
                                       .merge_size = config_.merge_size,
                                       .out = out,
                                       .table = &pixels_,
                                       .dtype = dtype_},
                                      stream));
    first += item.grid.patches();
  }
  if (first != batch.sizes.patches) {
    return absl::InvalidArgumentError(
        absl::StrCat("frames of ", first, " patches, a batch of ", batch.sizes.patches));
  }
  RETURN_IF_ERROR(kernels::Linear(
      patch_embedding_,
      {.x = at.inner, .rows = first, .y = at.attention, .dtype = dtype_, .y_dtype = dtype_},
      stream));
  return kernels::GatherRows({.x = at.attention,
                              .out = at.x,
                              .indices = batch.device.unit_at,
                              .rows = batch.sizes.units,
                              .indexed_rows = batch.sizes.units,
                              .width = config_.hidden_size * unit_patches(),
                              .dtype = dtype_},
                             stream);
}

absl::Status VisionTower::RunBlock(const VisionBatch& batch, int index, const Activations& at,
                                   const kernels::Stream& stream) const {
  const Block& block = blocks_[index];
  const std::vector<int>& full = config_.fullatt_block_indexes;
  const bool whole_frames = std::find(full.begin(), full.end(), index) != full.end();
  const int64_t segments = whole_frames ? batch.sizes.frames : batch.sizes.windows;
  const int32_t* offsets = whole_frames ? batch.host.frame_offsets : batch.host.window_offsets;
  const auto product = [&](const kernels::LinearWeights& weights, kernels::LinearArgs args) {
    args.rows = batch.sizes.patches;
    args.norm_eps = spec_.norm_eps;
    args.dtype = args.y_dtype = dtype_;
    return kernels::Linear(weights, args, stream);
  };
  RETURN_IF_ERROR(product(block.qkv, {.x = at.x, .y = at.qkv, .norm = block.norm1}));
  RETURN_IF_ERROR(kernels::SegmentAttention(
      {.qkv = at.qkv,
       .out = at.attention,
       .heads = config_.num_heads,
       .head_dim = config_.head_dim(),
       .offsets = absl::MakeConstSpan(offsets, static_cast<size_t>(segments) + 1),
       .device_offsets = whole_frames ? batch.device.frame_offsets : batch.device.window_offsets,
       .cosines = batch.device.cosines,
       .sines = batch.device.sines,
       .dtype = dtype_},
      stream));
  RETURN_IF_ERROR(product(block.projection, {.x = at.attention, .y = at.x, .residual = at.x}));
  RETURN_IF_ERROR(product(block.gate_up, {.x = at.x,
                                          .y = at.inner,
                                          .norm = block.norm2,
                                          .activation = kernels::LinearActivation::kSwiGlu}));
  return product(block.down, {.x = at.inner, .y = at.x, .residual = at.x});
}

absl::Status VisionTower::Merge(const VisionBatch& batch, const Activations& at,
                                const VisionOutput& out, const kernels::Stream& stream) const {
  const int64_t units = batch.sizes.units;
  RETURN_IF_ERROR(kernels::RmsNorm({.x = at.x,
                                    .weight = merger_norm_,
                                    .out = at.attention,
                                    .rows = batch.sizes.patches,
                                    .hidden = config_.hidden_size,
                                    .eps = spec_.norm_eps,
                                    .dtype = dtype_},
                                   stream));
  RETURN_IF_ERROR(kernels::Linear(merger_first_,
                                  {.x = at.attention,
                                   .rows = units,
                                   .y = at.qkv,
                                   .activation = kernels::LinearActivation::kGelu,
                                   .dtype = dtype_,
                                   .y_dtype = dtype_},
                                  stream));
  const kernels::WorkspaceScope scope(stream.workspace);
  void* const merged =
      stream.workspace->Take(units * config_.out_hidden_size * base::SizeOf(dtype_));
  RETURN_IF_ERROR(kernels::Linear(
      merger_second_, {.x = at.qkv, .rows = units, .y = merged, .dtype = dtype_, .y_dtype = dtype_},
      stream));
  return kernels::ScatterRows({.x = merged,
                               .out = out.data,
                               .indices = batch.device.slot_at,
                               .rows = units,
                               .indexed_rows = out.slots,
                               .width = config_.out_hidden_size,
                               .dtype = dtype_},
                              stream);
}

absl::Status VisionTower::Encode(absl::Span<const VisionFrames> items, const VisionBatch& batch,
                                 const VisionOutput& out, const kernels::Stream& stream) const {
  const int64_t patches = batch.sizes.patches;
  if (patches == 0) return absl::OkStatus();
  CHECK_TRUE(stream.workspace != nullptr);
  const kernels::WorkspaceScope scope(stream.workspace);
  const auto take = [&](int64_t width) {
    return stream.workspace->Take(patches * width * base::SizeOf(dtype_));
  };
  const int64_t hidden = config_.hidden_size;
  const Activations at{.x = take(hidden),
                       .qkv = take(3 * hidden),
                       .attention = take(hidden),
                       .inner = take(std::max(inner(), int64_t{config_.patch_elements()}))};
  RETURN_IF_ERROR(Embed(items, batch, at, stream));
  for (int i = 0; i < config_.depth; ++i) RETURN_IF_ERROR(RunBlock(batch, i, at, stream));
  return Merge(batch, at, out, stream);
}

int64_t VisionTower::WorkspaceBytes(int64_t patches) const {
  using kernels::Workspace;
  const int64_t size = base::SizeOf(dtype_), hidden = config_.hidden_size;
  int64_t bytes = 0;
  for (const int64_t width :
       {hidden, 3 * hidden, hidden, std::max(inner(), int64_t{config_.patch_elements()})}) {
    bytes += Workspace::Aligned(patches * width * size);
  }
  const int64_t units = patches / unit_patches();
  const int64_t merged = Workspace::Aligned(units * config_.out_hidden_size * size);
  static constexpr float kAnyNorm = 0;
  kernels::LinearArgs args{.dtype = dtype_, .y_dtype = dtype_};
  const auto needs = [&](const kernels::LinearWeights& weights, int64_t rows) {
    args.rows = rows;
    return kernels::LinearWorkspaceBytes(weights, args);
  };
  int64_t ops = std::max(needs(patch_embedding_, patches), merged + needs(merger_second_, units));
  ops = std::max({ops, needs(blocks_[0].projection, patches), needs(blocks_[0].down, patches)});
  args.activation = kernels::LinearActivation::kGelu;
  ops = std::max(ops, needs(merger_first_, units));
  args.norm = &kAnyNorm;
  args.activation = kernels::LinearActivation::kNone;
  ops = std::max(ops, needs(blocks_[0].qkv, patches));
  args.activation = kernels::LinearActivation::kSwiGlu;
  return bytes + std::max(ops, needs(blocks_[0].gate_up, patches));
}

}  // namespace triptych::models
