// What is defended: from the bytes of a file to the visual tokens, pictures, pairs and videos come
// out as the published implementation has them.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "media/decode.h"
#include "models/processor/image_processor.h"
#include "models/weights/safetensors.h"
#include "tests/models/reference_files.h"
#include "tests/models/vision/reference_tower.h"

namespace triptych::models {
namespace {

using nlohmann::json;

// The items of `example` as the tower takes them: one video, or one item a picture.
struct Items {
  std::vector<float> patches;
  std::vector<base::Grid> grids;
};

Items ItemsOf(const ImageProcessor& processor, const json& example) {
  std::vector<base::Image> images;
  for (const std::string path : example.at("images")) {
    const std::string file = testing::StagePicturesDir() + path.substr(path.rfind('/'));
    auto image = media::DecodeImage(testing::ReadBytes(file), media::Limits());
    REQUIRE(image.ok());
    images.push_back(*std::move(image));
  }
  Items items;
  const auto add = [&](const absl::StatusOr<Patches>& item) {
    REQUIRE(item.ok());
    items.patches.insert(items.patches.end(), item->values.begin(), item->values.end());
    items.grids.push_back({item->grid.t, item->grid.h, item->grid.w});
  };
  if (example.at("kind") == "video") {
    add(processor.PatchifyVideo(images));
  } else {
    for (const base::Image& image : images) add(processor.Patchify(image));
  }
  return items;
}

}  // namespace

TEST_CASE("VisionTower: the files of every reference case give its embeddings",
          "[models][vision][golden]") {
  const ReferenceTower model = LoadTower();
  if (model.tower == nullptr) return;
  const std::string stages = testing::StageGoldenDir();
  const ImageProcessor processor(model.config);
  int compared = 0;
  for (const json& example : json::parse(testing::ReadBytes(stages + "/index.json"))) {
    if (example.at("images").empty()) continue;
    const std::string name = example.at("file");
    INFO(name);
    const Items items = ItemsOf(processor, example);
    const auto golden = SafetensorsFile::Open(stages + "/" + name);
    REQUIRE(golden.ok());
    const std::vector<float> expected = ToFloats(*golden->Get("image_embeds"));
    std::vector<float> out(expected.size());
    int64_t elements = 0;
    for (const base::Grid& grid : items.grids) {
      elements += model.tower->TokensOf(grid) * model.config.vision.out_hidden_size;
    }
    REQUIRE(elements == static_cast<int64_t>(out.size()));
    REQUIRE(model.tower->Encode(items.patches.data(), items.grids, out.data(), {}).ok());
    CHECK(LargestDifference(out, expected) <= 1e-4f);
    ++compared;
  }
  CHECK(compared == 25);
}

}  // namespace triptych::models
