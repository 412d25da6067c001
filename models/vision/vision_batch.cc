#include "models/vision/vision_batch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/rope_append_angle.h"
#include "models/vision/window_order.h"

namespace triptych::models {
namespace {

constexpr int64_t kAlignment = 16;

// Hands out the arrays of a block one after another.
class BlockCursor {
 public:
  explicit BlockCursor(void* base) : base_(static_cast<std::byte*>(base)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* taken = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return taken;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* const base_;
  int64_t used_ = 0;
};

VisionArrays TakeArrays(const VisionSizes& sizes, const VisionConfig& config, BlockCursor* cursor) {
  const int64_t angles = sizes.patches * config.head_dim() / 2;
  VisionArrays arrays;
  arrays.unit_at = cursor->Take<int32_t>(sizes.units);
  arrays.slot_at = cursor->Take<int32_t>(sizes.units);
  arrays.window_offsets = cursor->Take<int32_t>(sizes.windows + 1);
  arrays.frame_offsets = cursor->Take<int32_t>(sizes.frames + 1);
  arrays.cosines = cursor->Take<float>(angles);
  arrays.sines = cursor->Take<float>(angles);
  return arrays;
}

// Cosines and sines of positions [0, side) for a quarter of a head: half of its frequencies turn
// with the row of a patch, half with the column.
struct AngleTable {
  std::vector<float> cosines, sines;  // [side, head_dim / 4]
};

AngleTable MakeAngleTable(int32_t side, const VisionConfig& config, double theta) {
  const int half = config.head_dim() / 2, quarter = half / 2;
  AngleTable table{std::vector<float>(side * quarter), std::vector<float>(side * quarter)};
  for (int i = 0; i < quarter; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(half);
    const float frequency =
        1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    for (int32_t position = 0; position < side; ++position) {
      const auto turn = kernels::RopeSineCosine(static_cast<float>(position) * frequency);
      table.cosines[position * quarter + i] = turn.cosine;
      table.sines[position * quarter + i] = turn.sine;
    }
  }
  return table;
}

void FillAngles(const WindowOrder& order, const AngleTable& table, int quarter, float* cosines,
                float* sines) {
  const size_t bytes = quarter * sizeof(float);
  for (size_t patch = 0; patch < order.rows.size(); ++patch) {
    const int32_t row = order.rows[patch] * quarter, column = order.columns[patch] * quarter;
    float* c = cosines + patch * 2 * quarter;
    float* s = sines + patch * 2 * quarter;
    std::memcpy(c, &table.cosines[row], bytes);
    std::memcpy(c + quarter, &table.cosines[column], bytes);
    std::memcpy(s, &table.sines[row], bytes);
    std::memcpy(s + quarter, &table.sines[column], bytes);
  }
}

// Appends an item's offsets, without its leading 0, behind what is there.
int32_t* AppendOffsets(const std::vector<int32_t>& offsets, int32_t first, int32_t* to) {
  for (size_t i = 1; i < offsets.size(); ++i) *to++ = first + offsets[i];
  return to;
}

}  // namespace

absl::StatusOr<VisionSizes> SizesOf(absl::Span<const VisionItem> items,
                                    const VisionConfig& config) {
  const int merge = config.merge_size;
  const int32_t side = config.window_size / merge / config.patch_size;
  VisionSizes sizes;
  for (const VisionItem& item : items) {
    const base::Grid& grid = item.grid;
    if (grid.t < 1 || grid.h < 1 || grid.w < 1 || grid.h % merge != 0 || grid.w % merge != 0) {
      return absl::InvalidArgumentError(absl::StrCat("grid ", grid.t, " x ", grid.h, " x ", grid.w,
                                                     " is empty or no multiple of ", merge));
    }
    const int64_t units = grid.patches() / (merge * merge);
    const auto windows = [side](int32_t extent) { return (extent + side - 1) / side; };
    sizes.patches += grid.patches();
    sizes.units += units;
    sizes.windows += int64_t{grid.t} * windows(grid.h / merge) * windows(grid.w / merge);
    sizes.frames += grid.t;
    if (static_cast<int64_t>(item.slots.size()) != units ||
        sizes.patches > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(absl::StrCat(units, " visual tokens of ", sizes.patches,
                                                     " patches in all have ", item.slots.size(),
                                                     " slots"));
    }
  }
  return sizes;
}

int64_t VisionBlockBytes(const VisionSizes& sizes, const VisionConfig& config) {
  BlockCursor cursor(nullptr);
  TakeArrays(sizes, config, &cursor);
  return cursor.used();
}

VisionArrays VisionArraysAt(const VisionSizes& sizes, const VisionConfig& config, void* base) {
  BlockCursor cursor(base);
  return TakeArrays(sizes, config, &cursor);
}

void PackVisionBatch(absl::Span<const VisionItem> items, const VisionConfig& config,
                     const TowerSpec& spec, const VisionArrays& arrays) {
  const int quarter = config.head_dim() / 4;
  const int64_t angles = 2 * quarter;
  int32_t* window_end = arrays.window_offsets;
  int32_t* frame_end = arrays.frame_offsets;
  *window_end++ = *frame_end++ = 0;
  int32_t patch = 0, unit = 0, side = 0;
  for (const VisionItem& item : items) side = std::max({side, item.grid.h, item.grid.w});
  const AngleTable table = MakeAngleTable(side, config, spec.rope_theta);
  for (const VisionItem& item : items) {
    const WindowOrder order = OrderByWindow(item.grid, config);
    for (size_t i = 0; i < order.unit_at.size(); ++i) {
      arrays.unit_at[unit + i] = unit + order.unit_at[i];
      arrays.slot_at[unit + i] = item.slots[order.unit_at[i]];
    }
    window_end = AppendOffsets(order.window_offsets, patch, window_end);
    frame_end = AppendOffsets(order.frame_offsets, patch, frame_end);
    FillAngles(order, table, quarter, arrays.cosines + patch * angles,
               arrays.sines + patch * angles);
    patch += static_cast<int32_t>(item.grid.patches());
    unit += static_cast<int32_t>(order.unit_at.size());
  }
}

}  // namespace triptych::models
