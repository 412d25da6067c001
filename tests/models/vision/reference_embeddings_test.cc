// What is defended: from the bytes of a file to the visual tokens, pictures, pairs and videos come
// out as the published implementation has them.

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "media/decode.h"
#include "models/processor/image_processor.h"
#include "models/vision/vision_tower.h"
#include "models/weights/safetensors.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {
namespace {

using nlohmann::json;

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The items of `example` as the tower takes them: one video, or one item a picture.
struct Items {
  std::vector<float> patches;
  std::vector<PatchGrid> grids;
};

Items ItemsOf(const ImageProcessor& processor, const json& example) {
  std::vector<base::Image> images;
  for (const std::string path : example.at("images")) {
    const std::string file = testing::StagePicturesDir() + path.substr(path.rfind('/'));
    auto image = media::DecodeImage(ReadBytes(file), media::Limits());
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

struct Model {
  ModelConfig config;
  std::unique_ptr<VisionTower> tower;
};

Model LoadModel(const std::string& dir) {
  auto config = LoadModelConfig(dir);
  auto checkpoint = Checkpoint::Open(dir);
  REQUIRE(config.ok());
  REQUIRE(checkpoint.ok());
  auto tower = VisionTower::Load(**checkpoint, config->vision);
  REQUIRE(tower.ok());
  return {*std::move(config), *std::move(tower)};
}

// Of the largest value of `expected`.
float LargestDifference(const std::vector<float>& actual, const std::vector<float>& expected) {
  REQUIRE(actual.size() == expected.size());
  float largest = 0, difference = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(expected[i] - actual[i]));
  }
  return difference / largest;
}

}  // namespace

TEST_CASE("VisionTower: the files of every reference case give its embeddings",
          "[models][vision][golden]") {
  const std::string stages = testing::StageGoldenDir(), model_dir = testing::SmallModelDir();
  if (stages.empty() || model_dir.empty() || testing::StagePicturesDir().empty()) {
    testing::SkipTest("the small model or its reference results are not here");
    return;
  }
  const Model model = LoadModel(model_dir);
  const ImageProcessor processor(model.config);
  int compared = 0;
  for (const json& example : json::parse(ReadBytes(stages + "/index.json"))) {
    if (example.at("images").empty()) continue;
    const std::string name = example.at("file");
    INFO(name);
    const Items items = ItemsOf(processor, example);
    const auto golden = SafetensorsFile::Open(stages + "/" + name);
    REQUIRE(golden.ok());
    const std::vector<float> expected = ToFloats(*golden->Get("image_embeds"));
    std::vector<float> out(expected.size());
    int64_t elements = 0;
    for (const PatchGrid& grid : items.grids) {
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
