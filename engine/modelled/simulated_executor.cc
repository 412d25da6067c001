#include "engine/modelled/simulated_executor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"

namespace triptych::engine {

using scheduler::ExportSpec;
using scheduler::ImportSpec;
using scheduler::Lane;
using scheduler::TaskId;

SimulatedExecutor::SimulatedExecutor(ModelledConfig config, const base::Clock& clock,
                                     ExecutorEvents events)
    : config_(std::move(config)),
      clock_(clock),
      events_(std::move(events)),
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

void SimulatedExecutor::ProvideInput(TaskId task, EncodeInput input) {
  const uint64_t digest = base::Checksum64(input.pixels.data(), input.pixels.size(),
                                           static_cast<uint64_t>(input.grid.patches()));
  digests_[task] = digest;
}

void SimulatedExecutor::DropInput(TaskId task) { digests_.erase(task); }

void SimulatedExecutor::Submit(scheduler::StepPlan plan) {
  AdvanceTo(std::min(clock_.Now(), NextEvent()));
  LaneOfSteps& lane = of(plan.lane);
  CHECK_LT(lane.steps.size(), 2u);
  Step step{.cost = base::FromSeconds(StepSeconds(config_.cost, plan))};
  for (const scheduler::EncodeRow& row : plan.encodes) {
    auto it = digests_.find(row.task);
    CHECK_TRUE(it != digests_.end());
    step.digests.push_back(it->second);
  }
  step.plan = std::move(plan);
  if (lane.steps.empty()) lane.left = step.cost;
  lane.steps.push_back(std::move(step));
}

template <typename Spec>
void SimulatedExecutor::Start(Copies<Spec>& copies, Spec spec) {
  const int32_t tokens = spec.range.token_end - spec.range.token_begin;
  base::TimePoint begin = std::max(advanced_to_, clock_.Now());
  if (!copies.under_way.empty()) begin = std::max(begin, copies.under_way.back().first);
  copies.under_way.emplace_back(begin + base::FromSeconds(config_.cost.transfer_per_token * tokens),
                                std::move(spec));
}

void SimulatedExecutor::Import(ImportSpec spec) { Start(imports_, std::move(spec)); }

void SimulatedExecutor::Export(ExportSpec spec) {
  if (IsWritten(spec)) return Start(exports_, std::move(spec));
  exports_.waiting.push_back(std::move(spec));
}

void SimulatedExecutor::ChecksumLanded(scheduler::PieceBuffer buffer,
                                       std::function<void(uint64_t)> on_checksum) {
  const absl::Span<const uint8_t> bytes = regions_.Landing(buffer).HostBytes();
  on_checksum(base::Checksum64(bytes.data(), bytes.size()));
}

bool SimulatedExecutor::IsWritten(const ExportSpec& spec) const {
  const bool kv = spec.range.kind == scheduler::TransferKind::kKv;
  return spec.after <= lanes_[static_cast<int>(kv ? Lane::kLanguage : Lane::kEncode)].done;
}

int SimulatedExecutor::busy_lanes() const {
  int busy = 0;
  for (const LaneOfSteps& lane : lanes_) busy += lane.steps.empty() ? 0 : 1;
  return busy;
}

base::TimePoint SimulatedExecutor::NextEvent() const {
  base::TimePoint next = base::kNever;
  for (const LaneOfSteps& lane : lanes_) {
    if (!lane.steps.empty()) next = std::min(next, advanced_to_ + lane.left * busy_lanes());
  }
  if (!imports_.under_way.empty()) next = std::min(next, imports_.under_way.front().first);
  if (!exports_.under_way.empty()) next = std::min(next, exports_.under_way.front().first);
  return next;
}

// Nothing may end between the last time and this one.
void SimulatedExecutor::AdvanceTo(base::TimePoint time) {
  if (time <= advanced_to_) return;
  const int busy = busy_lanes();
  for (LaneOfSteps& lane : lanes_) {
    if (lane.steps.empty()) continue;
    lane.left = std::max(base::Duration(0), lane.left - (time - advanced_to_) / busy);
  }
  advanced_to_ = time;
}

void SimulatedExecutor::RunUntil(base::TimePoint now) {
  for (base::TimePoint next = NextEvent(); next <= now && next != base::kNever;
       next = NextEvent()) {
    AdvanceTo(next);
    if (!imports_.under_way.empty() && imports_.under_way.front().first <= next) {
      const ImportSpec spec = std::move(imports_.under_way.front().second);
      imports_.under_way.pop_front();
      model_.Import(spec, regions_.Landing(spec.buffer).HostBytes());
      events_.on_import(spec.buffer.id);
    } else if (!exports_.under_way.empty() && exports_.under_way.front().first <= next) {
      const ExportSpec spec = std::move(exports_.under_way.front().second);
      exports_.under_way.pop_front();
      const absl::Span<uint8_t> bytes = regions_.Staging(spec.buffer).HostBytes();
      model_.Export(spec, bytes);
      events_.on_export({spec.buffer.id, base::Checksum64(bytes.data(), bytes.size())});
    } else {
      const auto ends = [](const LaneOfSteps& lane) {
        return !lane.steps.empty() && lane.left <= base::Duration(0);
      };
      FinishStep(ends(lanes_[0]) ? lanes_[0] : lanes_[1]);
    }
  }
}

void SimulatedExecutor::FinishStep(LaneOfSteps& lane) {
  const Step step = std::move(lane.steps.front());
  lane.steps.pop_front();
  if (!lane.steps.empty()) lane.left = lane.steps.front().cost;
  scheduler::StepResult result = Run(step);
  lane.done = step.plan.id;
  for (ExportSpec& spec : std::exchange(exports_.waiting, {})) Export(std::move(spec));
  events_.on_result(std::move(result));
}

scheduler::StepResult SimulatedExecutor::Run(const Step& step) {
  scheduler::StepResult result{
      .id = step.plan.id, .lane = step.plan.lane, .seconds = base::ToSeconds(step.cost)};
  for (size_t i = 0; i < step.plan.encodes.size(); ++i) {
    model_.Encode(step.plan.encodes[i], step.digests[i]);
  }
  for (const auto& row : step.plan.rows) {
    int32_t last_token = 0;
    if (row.sampled_by.has_value()) last_token = Sampled(*row.sampled_by);
    result.rows.push_back(model_.Run(row, row.sampled_by.has_value() ? &last_token : nullptr));
  }
  if (step.plan.lane != Lane::kLanguage) return result;
  done_.push_back(result);
  if (done_.size() > 2) done_.pop_front();
  return result;
}

int32_t SimulatedExecutor::Sampled(const scheduler::SampledBy& by) const {
  for (const scheduler::StepResult& result : done_) {
    if (result.id != by.step) continue;
    CHECK_TRUE(by.row >= 0 && by.row < static_cast<int32_t>(result.rows.size()));
    const scheduler::RowResult& row = result.rows[static_cast<size_t>(by.row)];
    CHECK_TRUE(!row.tokens.empty());
    return row.tokens[0].token;
  }
  CHECK_TRUE(false);  // it names no step that this one may follow
  return 0;
}

}  // namespace triptych::engine
