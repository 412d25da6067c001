#include "scheduler/stage/step_cost.h"

#include <algorithm>
#include <cmath>

namespace triptych::scheduler {
namespace {

// Features are of the order of 1 and seconds of 1e-3 to 1: weights start as good as free.
constexpr std::array<double, kNumStages + 2> kScale = {1, 1e-3, 1e-3, 1e-1, 1e-4};
constexpr double kFreeGain = 100;
constexpr double kKept = 0.98;    // of what was known, a step: the last fifty count
constexpr double kWeight = 0.05;  // of the newest step in averages
constexpr double kOutlier = 4;    // times the usual error
constexpr int kFirstSteps = 10;   // that nothing is usual in

}  // namespace

StepCost::StepCost() {
  for (int i = 0; i < kFeatures; ++i) gain_[i][i] = kFreeGain;
}

StepCost::Vector StepCost::FeaturesOf(const Work& work) {
  Vector x = {1, work.units[0], work.units[1], work.units[2], work.context};
  for (int i = 0; i < kFeatures; ++i) x[i] *= kScale[i];
  return x;
}

double StepCost::Predict(const Vector& x) const {
  double sum = 0;
  for (int i = 0; i < kFeatures; ++i) sum += weights_[i] * x[i];
  return sum;
}

void StepCost::Learn(const Work& work, double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  const Vector x = FeaturesOf(work);
  for (int i = 0; i < kNumStages; ++i) seen_[i] = seen_[i] || work.units[i] > 0;
  double residual = seconds - Predict(x);
  const double relative = std::min(1.0, std::abs(residual) / seconds);
  if (steps_ > kFirstSteps) {
    error_ += kWeight * (relative - error_);
    const double most = kOutlier * usual_error_ + 0.05 * seconds;
    residual = std::clamp(residual, -most, most);
  }
  usual_error_ += (steps_ > kFirstSteps ? kWeight : 0.3) * (std::abs(residual) - usual_error_);
  ++steps_;
  Vector px{};
  double spread = 0;
  for (int i = 0; i < kFeatures; ++i) {
    for (int j = 0; j < kFeatures; ++j) px[i] += gain_[i][j] * x[j];
    spread += x[i] * px[i];
  }
  for (int i = 0; i < kFeatures; ++i) weights_[i] += px[i] / (1 + spread) * residual;
  // Of what this step tells nothing about nothing is forgotten.
  const double kept = kKept - (1 - kKept) / spread;
  if (std::abs(kept) < 1e-9) return;
  const double share = 1 / (1 / kept + spread);
  for (int i = 0; i < kFeatures; ++i) {
    for (int j = 0; j < kFeatures; ++j) gain_[i][j] -= px[i] * px[j] * share;
  }
}

double StepCost::fixed_seconds(Stage stage) const {
  return seen_[static_cast<int>(stage)] ? std::max(0.0, weights_[0] * kScale[0]) : 0;
}

double StepCost::seconds_per_unit(Stage stage) const {
  const int i = static_cast<int>(stage);
  if (!seen_[i]) return 0;
  // What is known cannot look unknown.
  return std::max(1e-12, weights_[i + 1] * kScale[i + 1]);
}

}  // namespace triptych::scheduler
