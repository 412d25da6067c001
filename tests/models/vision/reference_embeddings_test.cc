// What is defended: from the bytes of a file to the visual tokens, pictures, pairs and videos come
// out as the published implementation has them.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "media/decode.h"
#include "models/processor/image_processor.h"
#include "models/weights/safetensors.h"
#include "tests/models/reference_files.h"
#include "tests/models/vision/references.h"
#include "tests/models/vision/tower_bench.h"

namespace triptych::models {
namespace {

using nlohmann::json;

// The items of `example` as the tower takes them: one video, or one item a picture.
std::vector<Frames> ItemsOf(const ImageProcessor& processor, const json& example) {
  std::vector<base::Image> images;
  for (const std::string path : example.at("images")) {
    const std::string file = testing::StagePicturesDir() + path.substr(path.rfind('/'));
    auto image = media::DecodeImage(testing::ReadBytes(file), media::Limits());
    REQUIRE(image.ok());
    images.push_back(*std::move(image));
  }
  std::vector<Frames> items;
  const auto add = [&](absl::Span<const base::Image> frames) {
    auto item = processor.FramesOf(frames);
    REQUIRE(item.ok());
    items.push_back(*std::move(item));
  };
  if (example.at("kind") == "video") {
    add(images);
  } else {
    for (const base::Image& image : images) add(absl::MakeConstSpan(&image, 1));
  }
  return items;
}

}  // namespace

TEST_CASE("VisionTower: the files of every reference case give its embeddings",
          "[models][vision][golden]") {
  if (ReferencesMissing()) return;
  testing::TowerBench tower(testing::SmallModelDir(), 2);
  const std::string stages = testing::StageGoldenDir();
  const ImageProcessor processor(tower.config());
  int compared = 0;
  for (const json& example : json::parse(testing::ReadBytes(stages + "/index.json"))) {
    if (example.at("images").empty()) continue;
    const std::string name = example.at("file");
    INFO(name);
    const std::vector<Frames> items = ItemsOf(processor, example);
    const auto golden = SafetensorsFile::Open(stages + "/" + name);
    REQUIRE(golden.ok());
    CHECK(LargestDifference(tower.Encode(items), ToFloats(*golden->Get("image_embeds"))) <= 1e-4f);
    ++compared;
  }
  CHECK(compared == 25);
}

}  // namespace triptych::models
