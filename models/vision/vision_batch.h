#pragma once

// The items of one call of the vision tower as flat arrays in one block of memory: where each merge
// unit (the patches that become one visual token) goes, which patches see each other, how each is
// rotated. Pure arithmetic; the block may be copied to a device as it is.

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/grid.h"
#include "models/config/model_config.h"
#include "models/family/model_spec.h"

namespace triptych::models {

// One picture or video as the batch sees it.
struct VisionItem {
  base::Grid grid;
  // Slots of its visual tokens in reading order, [grid.patches() / merge_size^2]. Borrowed.
  absl::Span<const int32_t> slots;
};

// Sizes of the block's arrays.
struct VisionSizes {
  int64_t patches = 0;
  int64_t units = 0;    // visual tokens
  int64_t windows = 0;  // segments of window attention
  int64_t frames = 0;   // segments of full attention
};

// The arrays at some base address, in the order of the block. Tower order: items one after another,
// merge units grouped by window, the patches of a unit adjacent.
struct VisionArrays {
  int32_t* unit_at = nullptr;         // [units]: which unit in reading order is i-th in the tower
  int32_t* slot_at = nullptr;         // [units]: the slot that its token goes to
  int32_t* window_offsets = nullptr;  // [windows + 1], in patches
  int32_t* frame_offsets = nullptr;   // [frames + 1], in patches
  float* cosines = nullptr;           // [patches, head_dim / 2]
  float* sines = nullptr;             // [patches, head_dim / 2]
};

// INVALID_ARGUMENT: a grid that is empty, too large for an int32 of patches in sum, or no multiple
// of the merge size, or whose slots are of another number.
absl::StatusOr<VisionSizes> SizesOf(absl::Span<const VisionItem> items, const VisionConfig& config);

// Bytes of the block, a multiple of 16.
int64_t VisionBlockBytes(const VisionSizes& sizes, const VisionConfig& config);

// The arrays of a block that begins at `base`, on the host or on a device.
VisionArrays VisionArraysAt(const VisionSizes& sizes, const VisionConfig& config, void* base);

// Fills the arrays for `items`, whose sizes are `sizes`.
void PackVisionBatch(absl::Span<const VisionItem> items, const VisionConfig& config,
                     const TowerSpec& spec, const VisionArrays& arrays);

}  // namespace triptych::models
