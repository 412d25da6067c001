#include "engine/modelled/modelled_executor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"

namespace triptych::engine {

using scheduler::TaskId;

ModelledExecutor::ModelledExecutor(ModelledConfig config, const base::Clock& clock,
                                   OnResult on_result)
    : config_(std::move(config)),
      clock_(clock),
      on_result_(std::move(on_result)),
      model_(config_.capacity, config_.tokens, config_.payload),
      regions_{{.bytes = config_.staging_bytes}, {.bytes = config_.landing_bytes}} {
  if (config_.payload == FakePayload::kDeclared) return;
  auto staging = HostMemory::Map(config_.staging_bytes);
  auto landing = HostMemory::Map(config_.landing_bytes);
  CHECK_TRUE(staging.ok() && landing.ok());  // tests alone carry bytes
  staging_ = *std::move(staging);
  landing_ = *std::move(landing);
  regions_ = {staging_.ref(), landing_.ref()};
}

void ModelledExecutor::ProvidePatches(TaskId task, EncodeInput input) {
  const uint64_t digest =
      base::Checksum64(input.patches.data(), input.patches.size() * sizeof(float),
                       static_cast<uint64_t>(input.grid.patches()));
  digests_[task] = digest;
}

void ModelledExecutor::DropPatches(TaskId task) { digests_.erase(task); }

void ModelledExecutor::Submit(scheduler::StepPlan plan) {
  CHECK_LT(steps_.size(), 2u);
  Step step{.seconds = StepSeconds(config_.cost, plan)};
  for (const scheduler::EncodeRow& row : plan.encodes) {
    auto it = digests_.find(row.task);
    CHECK_TRUE(it != digests_.end());
    step.digests.push_back(it->second);
  }
  const base::TimePoint begins =
      steps_.empty() ? clock_.Now() : std::max(clock_.Now(), steps_.back().ends);
  step.ends = begins + base::FromSeconds(step.seconds);
  step.plan = std::move(plan);
  steps_.push_back(std::move(step));
}

base::TimePoint ModelledExecutor::NextResult() const {
  return steps_.empty() ? base::kNever : steps_.front().ends;
}

void ModelledExecutor::RunUntil(base::TimePoint now) {
  while (!steps_.empty() && steps_.front().ends <= now) {
    const Step step = std::move(steps_.front());
    steps_.pop_front();
    scheduler::StepResult result = Run(step);
    done_.push_back(result);
    if (done_.size() > 2) done_.pop_front();
    on_result_(std::move(result));
  }
}

scheduler::StepResult ModelledExecutor::Run(const Step& step) {
  scheduler::StepResult result{.id = step.plan.id, .seconds = step.seconds};
  for (const auto& spec : step.plan.imports) {
    model_.Import(spec, regions_.landing.Sub(spec.buffer.offset, spec.buffer.bytes).HostBytes());
  }
  for (size_t i = 0; i < step.plan.encodes.size(); ++i) {
    model_.Encode(step.plan.encodes[i], step.digests[i]);
  }
  for (const auto& row : step.plan.rows) {
    int32_t last_token = 0;
    if (row.sampled_by.has_value()) last_token = Sampled(*row.sampled_by, result);
    result.rows.push_back(model_.Run(row, row.sampled_by.has_value() ? &last_token : nullptr));
  }
  for (const auto& spec : step.plan.exports) {
    const absl::Span<uint8_t> bytes =
        regions_.staging.Sub(spec.buffer.offset, spec.buffer.bytes).HostBytes();
    model_.Export(spec, bytes);
    result.exports.push_back({spec.buffer.id, base::Checksum64(bytes.data(), bytes.size())});
  }
  return result;
}

int32_t ModelledExecutor::Sampled(const scheduler::SampledBy& by,
                                  const scheduler::StepResult& current) const {
  if (by.step == current.id) return current.rows.at(static_cast<size_t>(by.row)).tokens.at(0).token;
  for (const scheduler::StepResult& result : done_) {
    if (result.id != by.step) continue;
    return result.rows.at(static_cast<size_t>(by.row)).tokens.at(0).token;
  }
  CHECK_TRUE(false);
  return 0;
}

}  // namespace triptych::engine
