#pragma once

// The vision tower: 8-bit frames to visual tokens, many items a call. Encode() only enqueues ops on
// the addresses that it is given. On the CPU it is batch-invariant: an item's tokens have the same
// bits alone or among others, on any number of threads.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/grid.h"
#include "kernels/linear.h"
#include "kernels/patchify.h"
#include "kernels/stream.h"
#include "models/config/model_config.h"
#include "models/family/model_spec.h"
#include "models/layers/load_layers.h"
#include "models/layers/weight_memory.h"
#include "models/vision/vision_batch.h"
#include "models/weights/weight_source.h"

namespace triptych::models {

// Frames of one item, [num_frames, grid.h * patch_size, grid.w * patch_size, 3], RGB, in the memory
// of the stream's device; num_frames as kernels/patchify.h has it.
struct VisionFrames {
  base::Grid grid;
  const uint8_t* frames = nullptr;
  int num_frames = 0;
};

// What PackVisionBatch made of the same items, on the host and, the same, on the device.
struct VisionBatch {
  VisionSizes sizes;
  VisionArrays host;
  VisionArrays device;
};

// Where the visual tokens go: [slots, out_hidden_size], of the type of activations.
struct VisionOutput {
  void* data = nullptr;
  int64_t slots = 0;
};

class VisionTower {
 public:
  // Places the tower of `weights`, which may be closed afterwards, in `memory`, which outlives it.
  // Errors as LayerLoader.
  static absl::StatusOr<std::unique_ptr<VisionTower>> Load(const WeightSource& weights,
                                                           const ModelConfig& config,
                                                           const TowerSpec& spec,
                                                           WeightMemory* memory);

  // Writes each item's tokens to its slots. Takes WorkspaceBytes() of the stream's workspace. Safe
  // from any thread, each with its workspace. Errors as the ops: INVALID_ARGUMENT for frames or
  // arrays that do not fit, INTERNAL for a launch that failed.
  absl::Status Encode(absl::Span<const VisionFrames> items, const VisionBatch& batch,
                      const VisionOutput& out, const kernels::Stream& stream) const;

  // The most that Encode() takes of a workspace for that many patches.
  int64_t WorkspaceBytes(int64_t patches) const;

  const VisionConfig& config() const { return config_; }
  const TowerSpec& spec() const { return spec_; }

 private:
  struct Block {
    const void* norm1 = nullptr;
    const void* norm2 = nullptr;
    kernels::LinearWeights qkv, projection, gate_up, down;
  };
  // Of one call, in the workspace.
  struct Activations;

  VisionTower(const ModelConfig& config, const TowerSpec& spec, base::DType dtype);
  absl::Status LoadBlock(const LayerLoader& loader, int index);
  // Patches of all items in reading order, embedded, then in tower order at.x.
  absl::Status Embed(absl::Span<const VisionFrames> items, const VisionBatch& batch,
                     const Activations& at, const kernels::Stream& stream) const;
  absl::Status RunBlock(const VisionBatch& batch, int index, const Activations& at,
                        const kernels::Stream& stream) const;
  // Norm, merge, and the tokens into their slots.
  absl::Status Merge(const VisionBatch& batch, const Activations& at, const VisionOutput& out,
                     const kernels::Stream& stream) const;
  int64_t unit_patches() const { return int64_t{config_.merge_size} * config_.merge_size; }
  int64_t inner() const { return blocks_[0].down.inputs; }

  const VisionConfig config_;
  const TowerSpec spec_;
  const base::DType dtype_;  // of activations
  const kernels::PixelTable pixels_;
  kernels::LinearWeights patch_embedding_;
  std::vector<Block> blocks_;
  const void* merger_norm_ = nullptr;
  kernels::LinearWeights merger_first_, merger_second_;
};

}  // namespace triptych::models
