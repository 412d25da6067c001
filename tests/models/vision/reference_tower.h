#pragma once

// The small model's vision tower, and how far its tokens are from the reference's.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/vision/vision_tower.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {

struct ReferenceTower {
  ModelConfig config;
  std::unique_ptr<VisionTower> tower;
};

// Without a tower, and the test skipped, where the model or its reference results are not here.
inline ReferenceTower LoadTower() {
  const std::string dir = testing::SmallModelDir();
  if (dir.empty() || testing::StageGoldenDir().empty() || testing::StagePicturesDir().empty()) {
    testing::SkipTest("the small model or its reference results are not here");
    return {};
  }
  auto config = LoadModelConfig(dir);
  auto checkpoint = Checkpoint::Open(dir);
  REQUIRE(config.ok());
  REQUIRE(checkpoint.ok());
  auto tower = VisionTower::Load(**checkpoint, config->vision);
  REQUIRE(tower.ok());
  return {*std::move(config), *std::move(tower)};
}

// As a share of the largest value of `expected`.
inline float LargestDifference(const std::vector<float>& actual,
                               const std::vector<float>& expected) {
  REQUIRE(actual.size() == expected.size());
  float largest = 0, difference = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(expected[i] - actual[i]));
  }
  return difference / largest;
}

}  // namespace triptych::models
