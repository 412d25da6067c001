#pragma once

// What the tests of the vision tower compare with.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {

// The test is skipped where the model or its reference results are not here.
inline bool ReferencesMissing() {
  if (!testing::SmallModelDir().empty() && !testing::StageGoldenDir().empty() &&
      !testing::StagePicturesDir().empty()) {
    return false;
  }
  testing::SkipTest("the small model or its reference results are not here");
  return true;
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
