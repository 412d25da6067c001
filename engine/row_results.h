#pragma once

// What was drawn, as the answer to a plan. Pure.

#include <vector>

#include "absl/types/span.h"
#include "kernels/sample.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// One result a row of the plan, in order. `drawn` holds at least the plan's sampled rows, in its
// order; `errors[i]` is not 0 where an input of row i named nothing.
std::vector<scheduler::RowResult> RowResultsOf(const scheduler::StepPlan& plan,
                                               absl::Span<const kernels::SampleResult> drawn,
                                               absl::Span<const int32_t> errors);

}  // namespace triptych::engine
