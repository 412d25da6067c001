#include "models/vision/window_order.h"

#include <algorithm>

namespace triptych::models {
namespace {

// One merge unit: its number in reading order and the positions of its patches, row-major.
void AppendUnit(int32_t frame, int32_t y, int32_t x, const base::Grid& grid, int merge,
                WindowOrder* order) {
  const int32_t units_high = grid.h / merge, units_wide = grid.w / merge;
  order->unit_at.push_back((frame * units_high + y) * units_wide + x);
  for (int dy = 0; dy < merge; ++dy) {
    for (int dx = 0; dx < merge; ++dx) {
      order->rows.push_back(y * merge + dy);
      order->columns.push_back(x * merge + dx);
    }
  }
}

}  // namespace

WindowOrder OrderByWindow(const base::Grid& grid, const VisionConfig& config) {
  const int merge = config.merge_size;
  const int32_t side = config.window_size / merge / config.patch_size;  // units along a window
  const int32_t units_high = grid.h / merge, units_wide = grid.w / merge;
  WindowOrder order;
  for (int32_t frame = 0; frame < grid.t; ++frame) {
    for (int32_t top = 0; top < units_high; top += side) {
      for (int32_t left = 0; left < units_wide; left += side) {
        for (int32_t y = top; y < std::min(top + side, units_high); ++y) {
          for (int32_t x = left; x < std::min(left + side, units_wide); ++x) {
            AppendUnit(frame, y, x, grid, merge, &order);
          }
        }
        order.window_offsets.push_back(static_cast<int32_t>(order.rows.size()));
      }
    }
    order.frame_offsets.push_back(static_cast<int32_t>(order.rows.size()));
  }
  return order;
}

}  // namespace triptych::models
