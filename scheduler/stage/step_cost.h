#pragma once

// How long a step of this worker takes: a + b * units of each stage + c * context, learned from
// every step, whatever its mixture, by recursive least squares with directional forgetting (Kulhavy
// 1987): what does not vary for long is not unlearned. One thread.

#include <array>

#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

class StepCost {
 public:
  // What a step did: `units` in each stage's cost unit (patches, prompt tokens, rows); `context`
  // tokens that its rows attended to.
  struct Work {
    std::array<double, kNumStages> units{};
    double context = 0;
  };
  StepCost();

  // `seconds` above 0. One that took far longer than usual counts as little more than usual.
  void Learn(const Work& work, double seconds);

  // Of a step with nothing else; 0 while unknown.
  double fixed_seconds(Stage stage) const;
  double seconds_per_unit(Stage stage) const;
  // Of late, relative to what the steps took; 0 at first.
  double prediction_error() const { return error_; }

 private:
  static constexpr int kFeatures = kNumStages + 2;  // 1, units by stage, context
  using Vector = std::array<double, kFeatures>;
  static Vector FeaturesOf(const Work& work);
  double Predict(const Vector& features) const;

  Vector weights_{};
  std::array<Vector, kFeatures> gain_{};
  std::array<bool, kNumStages> seen_{};
  double error_ = 0;
  double usual_error_ = 0;  // in seconds
  int steps_ = 0;
};

}  // namespace triptych::scheduler
