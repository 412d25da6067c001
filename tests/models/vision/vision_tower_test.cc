// What is defended: the vision tower agrees with the published implementation on real pictures, and
// an item's tokens do not depend on its company or on the number of threads.

#include "models/vision/vision_tower.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "kernels/thread_pool.h"
#include "models/weights/safetensors.h"
#include "tests/models/reference_files.h"
#include "tests/models/vision/reference_tower.h"

namespace triptych::models {
namespace {

struct Case {
  std::vector<float> patches;
  std::vector<float> expected;
  base::Grid grid;
};

Case ReadCase(const std::string& name) {
  auto file = SafetensorsFile::Open(testing::StageGoldenDir() + "/" + name);
  REQUIRE(file.ok());
  const std::vector<int64_t> grid = ToInt64s(*file->Get("grid_thw"));
  return {ToFloats(*file->Get("pixel_values")), ToFloats(*file->Get("image_embeds")),
          base::Grid{static_cast<int32_t>(grid[0]), static_cast<int32_t>(grid[1]),
                     static_cast<int32_t>(grid[2])}};
}

}  // namespace

TEST_CASE("VisionTower: embeddings agree with the published implementation",
          "[models][vision][golden]") {
  const auto tower = LoadTower().tower;
  if (tower == nullptr) return;
  for (const char* name : {"0000.safetensors", "0005.safetensors", "0009.safetensors"}) {
    const Case one = ReadCase(name);
    std::vector<float> out(one.expected.size());
    REQUIRE(tower->Encode(one.patches.data(), {one.grid}, out.data(), {}).ok());
    INFO(name);
    CHECK(LargestDifference(out, one.expected) <= 1e-4f);
  }
}

TEST_CASE("VisionTower: company and threads do not change a bit", "[models][vision]") {
  const auto tower = LoadTower().tower;
  if (tower == nullptr) return;
  const Case a = ReadCase("0000.safetensors"), b = ReadCase("0009.safetensors");
  std::vector<float> apart(a.expected.size() + b.expected.size()), together(apart.size());
  REQUIRE(tower->Encode(a.patches.data(), {a.grid}, apart.data(), {}).ok());
  REQUIRE(tower->Encode(b.patches.data(), {b.grid}, apart.data() + a.expected.size(), {}).ok());
  std::vector<float> patches = a.patches;
  patches.insert(patches.end(), b.patches.begin(), b.patches.end());
  kernels::ThreadPool pool(2);
  REQUIRE(tower->Encode(patches.data(), {a.grid, b.grid}, together.data(), {.pool = &pool}).ok());
  CHECK(std::memcmp(apart.data(), together.data(), apart.size() * sizeof(float)) == 0);
}

TEST_CASE("VisionTower: a grid that cannot be merged is refused", "[models][vision][hostile]") {
  const auto tower = LoadTower().tower;
  if (tower == nullptr) return;
  const base::Grid odd{1, 3, 4};
  CHECK(absl::IsInvalidArgument(tower->Encode(nullptr, {odd}, nullptr, {})));
}

}  // namespace triptych::models
