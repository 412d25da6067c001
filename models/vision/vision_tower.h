#pragma once

// The vision tower of Qwen2.5-VL on the CPU: normalised patches to visual tokens. Batch-invariant:
// an item's tokens have the same bits alone or among others, on any number of threads. One thread
// at a time (scratch memory is reused); the weights are read once.

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/linear.h"
#include "kernels/stream.h"
#include "models/config/model_config.h"
#include "models/layers/load_layers.h"
#include "models/vision/window_order.h"
#include "models/weights/checkpoint.h"

namespace triptych::models {

class VisionTower {
 public:
  // Packs the "visual." tensors of `checkpoint`, which may be closed afterwards. Errors as
  // LoadLinear.
  static absl::StatusOr<std::unique_ptr<VisionTower>> Load(const Checkpoint& checkpoint,
                                                           const VisionConfig& config);

  // `patches` [sum of grids' patches, patch_elements], items one after another, the patches of a
  // merge unit adjacent; `out` [sum of TokensOf, out_hidden_size], in reading order.
  // INVALID_ARGUMENT: a grid that is empty or no multiple of the merge size.
  absl::Status Encode(const float* patches, absl::Span<const base::Grid> grids, float* out,
                      const kernels::Stream& stream);

  int64_t TokensOf(const base::Grid& grid) const {
    return grid.patches() / (config_.merge_size * config_.merge_size);
  }
  const VisionConfig& config() const { return config_; }

 private:
  struct Block {
    std::vector<float> norm1, norm2;
    PackedLinear qkv, projection, gate_up, down;
  };

  explicit VisionTower(const VisionConfig& config) : config_(config) {}
  absl::Status LoadBlock(const Checkpoint& checkpoint, int index);
  // Cosine and sine of each patch, [patches, head_dim / 2], into cosine_ and sine_.
  void PrepareRotation(const WindowOrder& order);
  void RotateQueriesAndKeys(const kernels::Stream& stream);
  void RunBlock(int index, const WindowOrder& order, const kernels::Stream& stream);
  void EncodeItem(const float* patches, const base::Grid& grid, float* out,
                  const kernels::Stream& stream);
  // Norm, merge, and the tokens back into reading order.
  void Merge(const WindowOrder& order, float* out, const kernels::Stream& stream);

  const VisionConfig config_;
  PackedLinear patch_embedding_;
  std::vector<Block> blocks_;
  std::vector<float> merger_norm_;
  PackedLinear merger_first_, merger_second_;
  // Scratch of one item.
  int64_t num_patches_ = 0;
  std::vector<float> x_, normed_, qkv_, attention_, gate_up_, inner_, cosine_, sine_;
};

}  // namespace triptych::models
