#pragma once

// The order in which the vision tower sees patches: merge units (2x2 patches that become one visual
// token) grouped by attention window, frame by frame. Pure arithmetic.

#include <cstdint>
#include <vector>

#include "models/config/model_config.h"

namespace triptych::models {

// Patches of one item before the merge: frames (pairs), rows, columns.
struct PatchGrid {
  int32_t t = 0, h = 0, w = 0;
  int64_t patches() const { return int64_t{t} * h * w; }
};

struct WindowOrder {
  // unit_at[i]: which merge unit, in reading order, is i-th in the tower.
  std::vector<int32_t> unit_at;
  // Ends of the segments in tower patches: windows, and whole frames for the full blocks.
  std::vector<int32_t> window_ends;
  std::vector<int32_t> frame_ends;
  // Row and column of each patch, in tower order.
  std::vector<int32_t> rows, columns;
};

// `grid.h` and `grid.w` are multiples of merge_size.
WindowOrder OrderByWindow(const PatchGrid& grid, const VisionConfig& config);

}  // namespace triptych::models
