#pragma once

// A device without maths: its time is a cost model's, its tokens are a fake model's. In virtual
// time: whoever drives it asks NextResult() and calls RunUntil(). One thread; modelled_device.h
// puts it behind a thread of its own.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/executor.h"
#include "engine/memory/host_memory.h"
#include "engine/modelled/cost_model.h"
#include "engine/modelled/fake_model.h"

namespace triptych::engine {

struct ModelledConfig {
  Capacity capacity;
  CostModel cost;
  FakeTokens tokens;
  FakePayload payload = FakePayload::kDeclared;
  // Of the regions of pieces; they have bytes under kCarried only.
  int64_t staging_bytes = int64_t{256} << 20;
  int64_t landing_bytes = int64_t{256} << 20;
};

class ModelledExecutor final : public Executor {
 public:
  // Borrows `clock`.
  ModelledExecutor(ModelledConfig config, const base::Clock& clock, OnResult on_result);

  const Capacity& capacity() const override { return config_.capacity; }
  void ProvidePatches(scheduler::TaskId task, EncodeInput input) override;
  void DropPatches(scheduler::TaskId task) override;
  const TransferRegions& transfer_regions() const override { return regions_; }
  // CHECKs that at most two are in flight, and that every id in a plan exists when it runs.
  void Submit(scheduler::StepPlan plan) override;

  // When the oldest step in flight is over; kNever when there is none.
  base::TimePoint NextResult() const;
  // Runs the steps that are over by `now` and gives their results.
  void RunUntil(base::TimePoint now);

  int num_patches() const { return static_cast<int>(digests_.size()); }

 private:
  struct Step {
    scheduler::StepPlan plan;
    std::vector<uint64_t> digests;  // of the patches of plan.encodes
    base::TimePoint ends;
    double seconds = 0;
  };
  scheduler::StepResult Run(const Step& step);
  int32_t Sampled(const scheduler::SampledBy& by, const scheduler::StepResult& current) const;

  const ModelledConfig config_;
  const base::Clock& clock_;
  const OnResult on_result_;
  FakeModel model_;
  HostMemory staging_, landing_;
  TransferRegions regions_;
  std::map<scheduler::TaskId, uint64_t> digests_;
  std::deque<Step> steps_;
  // The last results, which rows of later steps may refer to.
  std::deque<scheduler::StepResult> done_;
};

}  // namespace triptych::engine
