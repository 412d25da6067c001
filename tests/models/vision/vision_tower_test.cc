// What is defended: the vision tower agrees with the published implementation on real pictures, and
// an item's tokens do not depend on its company or on the number of threads.

#include "models/vision/vision_tower.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

#include "models/vision/window_order.h"
#include "models/weights/safetensors.h"
#include "tests/models/patches.h"
#include "tests/models/reference_files.h"
#include "tests/models/vision/references.h"
#include "tests/models/vision/tower_bench.h"

namespace triptych::models {
namespace {

struct Case {
  Frames frames;
  std::vector<float> expected;
};

Case ReadCase(const std::string& name, const ModelConfig& config) {
  auto file = SafetensorsFile::Open(testing::StageGoldenDir() + "/" + name);
  REQUIRE(file.ok());
  const std::vector<int64_t> thw = ToInt64s(*file->Get("grid_thw"));
  const base::Grid grid{static_cast<int32_t>(thw[0]), static_cast<int32_t>(thw[1]),
                        static_cast<int32_t>(thw[2])};
  return {testing::FramesOfPatches(ToFloats(*file->Get("pixel_values")), grid, config),
          ToFloats(*file->Get("image_embeds"))};
}

}  // namespace

TEST_CASE("VisionTower: embeddings agree with the published implementation",
          "[models][vision][golden]") {
  if (ReferencesMissing()) return;
  testing::TowerBench tower(testing::SmallModelDir(), 1);
  for (const char* name : {"0000.safetensors", "0005.safetensors", "0009.safetensors"}) {
    const Case one = ReadCase(name, tower.config());
    INFO(name);
    CHECK(LargestDifference(tower.Encode({one.frames}), one.expected) <= 1e-4f);
  }
}

TEST_CASE("VisionTower: company and threads do not change a bit", "[models][vision]") {
  if (ReferencesMissing()) return;
  testing::TowerBench one(testing::SmallModelDir(), 1), two(testing::SmallModelDir(), 2);
  const Case a = ReadCase("0000.safetensors", one.config());
  const Case b = ReadCase("0009.safetensors", one.config());
  std::vector<float> apart = one.Encode({a.frames});
  const std::vector<float> second = one.Encode({b.frames});
  apart.insert(apart.end(), second.begin(), second.end());
  const std::vector<float> together = two.Encode({a.frames, b.frames});
  REQUIRE(together.size() == apart.size());
  CHECK(std::memcmp(apart.data(), together.data(), apart.size() * sizeof(float)) == 0);
}

TEST_CASE("VisionBatch: what cannot be merged, or has no place, is refused",
          "[models][vision][hostile]") {
  const VisionConfig config{.hidden_size = 256, .num_heads = 4};
  const std::vector<int32_t> slots(4);
  CHECK(SizesOf({VisionItem{{1, 4, 4}, slots}}, config).ok());
  for (const base::Grid& grid : {base::Grid{1, 3, 4}, {0, 4, 4}, {1, 4, -4}, {1, 4, 6}}) {
    CHECK(absl::IsInvalidArgument(SizesOf({VisionItem{grid, slots}}, config).status()));
  }
}

TEST_CASE("VisionBatch: items follow each other, each in the order of its own windows",
          "[models][vision]") {
  const VisionConfig config{.hidden_size = 256, .num_heads = 4};
  std::vector<int32_t> first(6 * 5), second(2 * 4);  // units: 6 x 5, and two frames of 2 x 2
  std::iota(first.begin(), first.end(), 100);
  std::iota(second.begin(), second.end(), 500);
  const std::vector<VisionItem> items = {{{1, 12, 10}, first}, {{2, 4, 4}, second}};
  const VisionSizes sizes = *SizesOf(items, config);
  CHECK(sizes.patches == 120 + 32);
  CHECK(sizes.windows == 4 + 2);
  CHECK(sizes.frames == 1 + 2);
  std::vector<float> block(VisionBlockBytes(sizes, config) / 4);
  const VisionArrays arrays = VisionArraysAt(sizes, config, block.data());
  PackVisionBatch(items, config, TowerSpec(), arrays);
  for (const VisionItem& item : items) {
    const int64_t begin = &item == &items[0] ? 0 : 30;
    const WindowOrder alone = OrderByWindow(item.grid, config);
    for (size_t i = 0; i < alone.unit_at.size(); ++i) {
      CHECK(arrays.unit_at[begin + i] == begin + alone.unit_at[i]);
      CHECK(arrays.slot_at[begin + i] == item.slots[alone.unit_at[i]]);
    }
  }
  const std::vector<int32_t> windows(arrays.window_offsets, arrays.window_offsets + 7);
  CHECK(windows == std::vector<int32_t>{0, 64, 80, 112, 120, 136, 152});
  const std::vector<int32_t> frames(arrays.frame_offsets, arrays.frame_offsets + 4);
  CHECK(frames == std::vector<int32_t>{0, 120, 136, 152});
}

}  // namespace triptych::models
