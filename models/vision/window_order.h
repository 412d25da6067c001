#pragma once

// The order in which the vision tower sees patches: merge units (2x2 patches that become one visual
// token) grouped by attention window, frame by frame. Pure arithmetic.

#include <cstdint>
#include <vector>

#include "base/grid.h"
#include "models/config/model_config.h"

namespace triptych::models {

struct WindowOrder {
  // unit_at[i]: which merge unit, in reading order, is i-th in the tower.
  std::vector<int32_t> unit_at;
  // The segments in tower patches, i-th from [i] to [i + 1]: windows, and whole frames for the full
  // blocks.
  std::vector<int32_t> window_offsets = {0};
  std::vector<int32_t> frame_offsets = {0};
  // Row and column of each patch, in tower order.
  std::vector<int32_t> rows, columns;
};

// `grid.h` and `grid.w` are multiples of merge_size.
WindowOrder OrderByWindow(const base::Grid& grid, const VisionConfig& config);

}  // namespace triptych::models
