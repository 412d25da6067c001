// What is defended: pixels reach the vision tower as the published processor hands them over. Ten
// awkward pictures are compared with its output; small cases are worked out by hand.

#include "models/processor/image_processor.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "base/random.h"
#include "base/status.h"
#include "media/decode.h"
#include "models/processor/resize.h"
#include "models/weights/safetensors.h"
#include "tests/models/patches.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {
namespace {

using nlohmann::json;
using scheduler::Grid;

// The small model's, so that most tests need no file.
ModelConfig Config() {
  ModelConfig config;
  config.preprocessor = {.min_pixels = 3136,
                         .max_pixels = 451584,
                         .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                         .std = {0.26862954f, 0.26130258f, 0.27577711f}};
  return config;
}

base::Image Decode(const std::string& path) {
  auto image = media::DecodeImage(testing::ReadBytes(path), media::Limits());
  INFO(path);
  REQUIRE(image.ok());
  return *std::move(image);
}

base::Image Noise(int width, int height, unsigned seed) {
  base::Image image{width, height, {}};
  std::mt19937 random(seed);
  image.pixels.resize(size_t{3} * width * height);
  for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(random());
  return image;
}

// What the published processor hands over.
struct Patches {
  Grid grid;
  std::vector<float> values;
};

absl::StatusOr<Patches> PatchesOf(const ImageProcessor& processor,
                                  absl::Span<const base::Image> images) {
  ASSIGN_OR_RETURN(const Frames frames, processor.FramesOf(images));
  return Patches{frames.grid, testing::PatchesOf(frames, Config())};
}

Grid GridFrom(const json& thw) { return {thw[0], thw[1], thw[2]}; }

// How far `actual` is from `expected`.
struct Difference {
  double exact_share = 0;  // within float rounding
  double largest = 0;
};
Difference Compare(absl::Span<const float> actual, absl::Span<const float> expected) {
  REQUIRE(actual.size() == expected.size());
  Difference difference;
  size_t exact = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double distance = std::abs(actual[i] - expected[i]);
    if (distance < 1e-5) ++exact;
    difference.largest = std::max(difference.largest, distance);
  }
  difference.exact_share = static_cast<double>(exact) / static_cast<double>(actual.size());
  return difference;
}

}  // namespace

TEST_CASE("ImageProcessor: ten awkward pictures give the reference pixels",
          "[models][processor][golden]") {
  const std::string dir = "tests/golden/preprocess/";
  const json index = json::parse(testing::ReadBytes(dir + "index.json"));
  REQUIRE(index["cases"].size() == 10);
  const ImageProcessor processor(Config());
  for (const json& example : index["cases"]) {
    const auto file = example["file"].get<std::string>();
    INFO(file);
    const base::Image image = Decode(dir + file);
    CHECK(image.width == example["decoded_size"][0]);
    CHECK(image.height == example["decoded_size"][1]);
    const auto patches = PatchesOf(processor, {image});
    REQUIRE(patches.ok());
    CHECK(patches->grid == GridFrom(example["grid_thw"]));
    CHECK(*processor.GridOf(image.width, image.height) == patches->grid);
    const auto golden = SafetensorsFile::Open(dir + file + ".safetensors");
    REQUIRE(golden.ok());
    const std::vector<int64_t> rows = ToInt64s(*golden->Get("rows"));
    std::vector<float> actual;
    for (const int64_t row : rows) {
      const auto begin = patches->values.begin() + row * 1176;
      actual.insert(actual.end(), begin, begin + 1176);
    }
    const Difference difference = Compare(actual, ToFloats(*golden->Get("pixel_values_rows")));
    INFO("exact " << difference.exact_share << ", largest difference " << difference.largest);
    CHECK(difference.exact_share >= 0.99);
    CHECK(difference.largest <= 0.0151);
  }
}

TEST_CASE("ImageProcessor: pictures and video frames of the stage cases give their pixels",
          "[models][processor][golden]") {
  const std::string stages = testing::StageGoldenDir(), pictures = testing::StagePicturesDir();
  if (stages.empty() || pictures.empty()) {
    triptych::testing::SkipTest("no reference results here");
    return;
  }
  const ImageProcessor processor(Config());
  for (const char* name : {"0000", "0005", "0009"}) {
    INFO(name);
    std::vector<base::Image> frames;
    for (int f = 0; f < (std::string(name) == "0009" ? 8 : 1); ++f) {
      frames.push_back(Decode(pictures + "/" + name + "_" + std::to_string(f) + ".png"));
    }
    const auto patches = PatchesOf(processor, frames);
    REQUIRE(patches.ok());
    const auto golden = SafetensorsFile::Open(stages + "/" + name + ".safetensors");
    REQUIRE(golden.ok());
    const Difference difference = Compare(patches->values, ToFloats(*golden->Get("pixel_values")));
    CHECK(difference.largest < 1e-5);
  }
}

TEST_CASE("ImageProcessor: patches lie in merge order, channel by channel", "[models][processor]") {
  const ImageProcessor processor(Config());
  const base::Image image = Noise(112, 84, 1);
  const auto patches = PatchesOf(processor, {image});
  REQUIRE(patches.ok());
  REQUIRE(patches->grid == Grid{1, 6, 8});
  const ModelConfig config = Config();
  std::mt19937 random(2);
  for (int round = 0; round < 1000; ++round) {
    const int x = static_cast<int>(random() % 112), y = static_cast<int>(random() % 84);
    const int c = static_cast<int>(random() % 3), frame = static_cast<int>(random() % 2);
    const int column = x / 14, row = y / 14;
    const int patch = (row / 2 * 4 + column / 2) * 4 + row % 2 * 2 + column % 2;
    const size_t at = static_cast<size_t>(patch) * 1176 +
                      static_cast<size_t>(((c * 2 + frame) * 14 + y % 14) * 14 + x % 14);
    const float value = image.pixels[static_cast<size_t>((y * 112 + x) * 3 + c)] / 255.0f;
    const auto channel = static_cast<size_t>(c);
    const float expected =
        (value - config.preprocessor.mean[channel]) / config.preprocessor.std[channel];
    REQUIRE(patches->values[at] == Approx(expected).margin(1e-5));
  }
}

TEST_CASE("ImageProcessor: an odd video repeats its last frame", "[models][processor]") {
  const ImageProcessor processor(Config());
  std::vector<base::Image> frames = {Noise(56, 56, 1), Noise(56, 56, 2), Noise(56, 56, 3)};
  const auto odd = PatchesOf(processor, frames);
  frames.push_back(frames.back());
  const auto even = PatchesOf(processor, frames);
  REQUIRE(odd.ok());
  CHECK(odd->grid == Grid{2, 4, 4});
  CHECK(odd->values == even->values);
  CHECK(*processor.VideoGridOf(56, 56, 3) == odd->grid);
  CHECK(processor.SecondsPerGrid(2) == 1.0);
  frames.push_back(Noise(56, 84, 4));
  CHECK(absl::IsInvalidArgument(PatchesOf(processor, frames).status()));
  CHECK(absl::IsInvalidArgument(processor.FramesOf({}).status()));
  CHECK(absl::IsInvalidArgument(processor.VideoGridOf(56, 56, 0).status()));
}

TEST_CASE("SmartResize: sizes are multiples of the factor within the bounds",
          "[models][processor]") {
  const auto resized = [](int width, int height) {
    return SmartResize({width, height}, 28, 3136, 451584);
  };
  CHECK(*resized(20, 30) == Size{56, 84});
  CHECK(*resized(2000, 1500) == Size{756, 560});
  CHECK(*resized(448, 448) == Size{448, 448});
  CHECK(*resized(70, 98) == Size{56, 112});  // 2.5 and 3.5 round to even
  CHECK(resized(1, 200).ok());
  for (const auto& [width, height] : std::vector<std::pair<int, int>>{
           {0, 5}, {5, 0}, {-1, 5}, {1, 201}, {20000, 1}, {2147483647, 1}}) {
    CHECK(absl::IsInvalidArgument(resized(width, height).status()));
  }
  std::mt19937 random(9);
  for (int round = 0; round < 5000; ++round) {
    const int width = static_cast<int>(random() % 5000 + 1);
    const int height = static_cast<int>(random() % 5000 + 1);
    const auto size = resized(width, height);
    if (!size.ok()) continue;
    INFO(width << "x" << height);
    REQUIRE(size->width % 28 == 0);
    REQUIRE(size->height % 28 == 0);
    REQUIRE(size->width > 0);
    REQUIRE(size->height > 0);
    REQUIRE(int64_t{size->width} * size->height >= 3136);
  }
}

TEST_CASE("ResizeBicubic: flat areas stay flat and sizes are exact", "[models][processor]") {
  for (const auto& [width, height] : std::vector<std::pair<int, int>>{{1, 1}, {7, 300}, {640, 3}}) {
    base::Image flat{width, height, std::vector<uint8_t>(size_t{3} * width * height, 200)};
    const base::Image resized = ResizeBicubic(flat, {56, 84});
    CHECK(resized.width == 56);
    CHECK(resized.height == 84);
    CHECK(resized.pixels == std::vector<uint8_t>(size_t{3} * 56 * 84, 200));
  }
  const base::Image noise = Noise(30, 20, 4);
  CHECK(ResizeBicubic(noise, {30, 20}).pixels == noise.pixels);
}

base::Image Transposed(const base::Image& image) {
  base::Image turned{image.height, image.width, std::vector<uint8_t>(image.pixels.size())};
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      std::copy_n(&image.pixels[size_t{3} * (static_cast<size_t>(y) * image.width + x)], 3,
                  &turned.pixels[size_t{3} * (static_cast<size_t>(x) * image.height + y)]);
    }
  }
  return turned;
}

TEST_CASE("ResizeBicubic: rows and columns are treated alike, whatever their length",
          "[models][processor]") {
  base::SeededRandom random(31);
  for (int round = 0; round < 200; ++round) {
    const int width = 1 + static_cast<int>(random.Below(70));
    const int height = 1 + static_cast<int>(random.Below(40));
    const int wanted = 1 + static_cast<int>(random.Below(120));
    const base::Image noise = Noise(width, height, round);
    const base::Image wide = ResizeBicubic(noise, {wanted, height});
    const base::Image tall = ResizeBicubic(Transposed(noise), {height, wanted});
    REQUIRE(wide.pixels == Transposed(tall).pixels);
  }
}

}  // namespace triptych::models
