#include "engine/row_results.h"

namespace triptych::engine {
namespace {

// Errors of the logits beside those of the inputs; a token where there is none.
void AddDrawn(const kernels::SampleResult& drawn, scheduler::RowResult* result) {
  result->numerical_error = result->numerical_error || drawn.error != 0;
  if (result->numerical_error) return;
  scheduler::SampledToken& token = result->tokens.emplace_back();
  token.token = drawn.id;
  token.logprob = drawn.logprob;
  for (int32_t i = 0; i < drawn.top_count; ++i) {
    token.top.push_back({drawn.top_ids[i], drawn.top_logprobs[i]});
  }
}

}  // namespace

std::vector<scheduler::RowResult> RowResultsOf(const scheduler::StepPlan& plan,
                                               absl::Span<const kernels::SampleResult> drawn,
                                               absl::Span<const int32_t> errors) {
  std::vector<scheduler::RowResult> results;
  results.reserve(plan.rows.size());
  size_t next = 0;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    scheduler::RowResult& result = results.emplace_back();
    result.task = plan.rows[i].task;
    result.numerical_error = errors[i] != 0;
    if (plan.rows[i].sample.has_value()) AddDrawn(drawn[next++], &result);
  }
  return results;
}

}  // namespace triptych::engine
