// Defended: the time of a step is learned from whatever mixture of work there was, survives
// outliers and what never varies, and follows a device that changes.

#include "scheduler/stage/step_cost.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "base/random.h"

namespace triptych::scheduler {
namespace {

struct Device {
  double fixed = 0.004, patch = 2e-6, token = 1e-5, row = 2e-4, context = 1e-8;
  double Seconds(const StepCost::Work& work) const {
    return fixed + patch * work.units[0] + token * work.units[1] + row * work.units[2] +
           context * work.context;
  }
};

StepCost::Work Mixture(base::SeededRandom& random) {
  StepCost::Work work;
  if (random.Chance(0.5)) work.units[0] = static_cast<double>(random.Below(4096));
  if (random.Chance(0.5)) work.units[1] = static_cast<double>(random.Below(512));
  if (random.Chance(0.8)) work.units[2] = static_cast<double>(random.Below(64));
  work.context = (work.units[1] + work.units[2]) * static_cast<double>(random.Below(2000));
  return work;
}

}  // namespace

TEST_CASE("StepCost: mixed steps teach each stage's share", "[scheduler][stage]") {
  base::SeededRandom random(5);
  const bool outliers = GENERATE(false, true);
  CAPTURE(outliers);
  const Device device;
  StepCost cost;
  for (int i = 0; i < 600; ++i) {
    const StepCost::Work work = Mixture(random);
    double seconds = device.Seconds(work) * (0.98 + 0.04 * random.Uniform());
    if (outliers && random.Chance(0.03)) seconds *= 20;
    cost.Learn(work, seconds);
  }
  const double most = outliers ? 0.5 : 0.1;
  CHECK(cost.fixed_seconds(Stage::kDecode) == Approx(device.fixed).epsilon(most));
  CHECK(cost.seconds_per_unit(Stage::kEncode) == Approx(device.patch).epsilon(most));
  CHECK(cost.seconds_per_unit(Stage::kPrefill) == Approx(device.token).epsilon(most));
  CHECK(cost.seconds_per_unit(Stage::kDecode) == Approx(device.row).epsilon(most));
  if (!outliers) CHECK(cost.prediction_error() < 0.05);
}

TEST_CASE("StepCost: what does not vary is not unlearned, and a change is followed",
          "[scheduler][stage]") {
  base::SeededRandom random(6);
  Device device;
  StepCost cost;
  for (int i = 0; i < 300; ++i) {
    const StepCost::Work work = Mixture(random);
    cost.Learn(work, device.Seconds(work));
  }
  StepCost::Work same;
  same.units[2] = 8;
  same.context = 8 * 500;
  for (int i = 0; i < 5000; ++i) cost.Learn(same, device.Seconds(same));
  StepCost::Work prompt;
  prompt.units[1] = 400;
  const double predicted =
      cost.fixed_seconds(Stage::kPrefill) + 400 * cost.seconds_per_unit(Stage::kPrefill);
  CHECK(predicted == Approx(device.Seconds(prompt)).epsilon(0.2));
  device.fixed *= 3;
  device.row *= 3;
  for (int i = 0; i < 500; ++i) cost.Learn(same, device.Seconds(same));
  CHECK(cost.prediction_error() < 0.05);
}

TEST_CASE("StepCost: a stage that never ran is unknown, and nonsense is not learned",
          "[scheduler][stage]") {
  StepCost cost;
  StepCost::Work work;
  work.units[2] = 4;
  cost.Learn(work, -1);
  cost.Learn(work, std::nan(""));
  CHECK(cost.seconds_per_unit(Stage::kDecode) == 0);
  cost.Learn(work, 0.01);
  CHECK(cost.seconds_per_unit(Stage::kDecode) > 0);
  CHECK(cost.seconds_per_unit(Stage::kPrefill) == 0);
}

}  // namespace triptych::scheduler
