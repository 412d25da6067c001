#pragma once

// How long a modelled device takes for a step: linear in what the step does. Read from a file of
// `name = value` lines, so that a measured device can be modelled.

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// Seconds. The defaults are those of a small model on one fast device, for demonstrations.
struct CostModel {
  double step_fixed = 0.002;  // of any step
  double encode_fixed = 0.002;
  double encode_per_patch = 4e-6;
  double prefill_per_token = 2e-5;
  double prefill_per_token_context =
      1e-9;  // attention: tokens of the chunk x tokens before its end
  double decode_per_sequence = 1e-4;
  double decode_per_context_token = 1e-8;
  double transfer_per_token = 1e-7;  // imports and exports, beside the steps
};

// Encodes and rows of one step together, alone on the device. A row of one token is a decode row.
double StepSeconds(const CostModel& cost, const scheduler::StepPlan& plan);

// Parses the text of a cost file: `name = value` a line, `#` begins a comment, what is not named
// keeps its default. INVALID_ARGUMENT with the line's number for an unknown name, or a value that
// is not a finite number of at least 0.
absl::StatusOr<CostModel> ParseCostModel(const std::string& text);

// Reads such a file. NOT_FOUND when it cannot be opened.
absl::StatusOr<CostModel> ReadCostModel(const std::string& path);

}  // namespace triptych::engine
