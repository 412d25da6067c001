#pragma once

// A device without maths: its time is a cost model's, its tokens are a fake model's. In virtual
// time: whoever drives it asks NextEvent() and calls RunUntil(). The two lanes of steps share the
// device evenly; imports and exports have an engine each that copies beside them. One thread;
// modelled_executor.h puts it behind a thread of its own.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
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

class SimulatedExecutor final : public Executor {
 public:
  // Borrows `clock`.
  SimulatedExecutor(ModelledConfig config, const base::Clock& clock, ExecutorEvents events);

  const Capacity& capacity() const override { return config_.capacity; }
  const TransferRegions& transfer_regions() const override { return regions_; }
  void ProvideInput(scheduler::TaskId task, EncodeInput input) override;
  void DropInput(scheduler::TaskId task) override;
  // CHECKs that at most two of its lane are in flight, and that every id in a plan exists when it
  // runs.
  void Submit(scheduler::StepPlan plan) override;
  void Import(scheduler::ImportSpec spec) override;
  void Export(scheduler::ExportSpec spec) override;
  // Costs no time.
  void ChecksumLanded(scheduler::PieceBuffer buffer,
                      std::function<void(uint64_t)> on_checksum) override;

  // When the next piece of work is over; kNever when there is none.
  base::TimePoint NextEvent() const;
  // Runs what is over by `now`, and tells it.
  void RunUntil(base::TimePoint now);

  int num_patches() const { return static_cast<int>(digests_.size()); }

 private:
  struct Step {
    scheduler::StepPlan plan;
    std::vector<uint64_t> digests;  // of the patches of plan.encodes
    base::Duration cost{};          // alone on the device
  };
  struct LaneOfSteps {
    std::deque<Step> steps;
    base::Duration left{};  // of the first one, alone on the device
    scheduler::StepId done;
  };
  // Copies one after another.
  template <typename Spec>
  struct Copies {
    std::deque<std::pair<base::TimePoint, Spec>> under_way;  // with its end
    std::deque<Spec> waiting;                                // for the step that writes it
  };

  LaneOfSteps& of(scheduler::Lane lane) { return lanes_[static_cast<int>(lane)]; }
  int busy_lanes() const;
  void AdvanceTo(base::TimePoint time);
  void FinishStep(LaneOfSteps& lane);
  bool IsWritten(const scheduler::ExportSpec& spec) const;
  template <typename Spec>
  void Start(Copies<Spec>& copies, Spec spec);
  scheduler::StepResult Run(const Step& step);
  int32_t Sampled(const scheduler::SampledBy& by) const;

  const ModelledConfig config_;
  const base::Clock& clock_;
  const ExecutorEvents events_;
  FakeModel model_;
  HostMemory staging_, landing_;
  TransferRegions regions_;
  std::map<scheduler::TaskId, uint64_t> digests_;
  LaneOfSteps lanes_[scheduler::kNumLanes];
  base::TimePoint advanced_to_{};
  Copies<scheduler::ImportSpec> imports_;
  Copies<scheduler::ExportSpec> exports_;
  // The last results of the language lane, which rows of later steps may refer to.
  std::deque<scheduler::StepResult> done_;
};

}  // namespace triptych::engine
