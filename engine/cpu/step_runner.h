#pragma once

// Runs the steps of both lanes on the CPU, on the calling thread and its pool. It owns the models
// and borrows the physical pools; it knows no queue and no clock. One thread.

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/executor.h"
#include "engine/memory/host_memory.h"
#include "engine/memory/paged_pool.h"
#include "engine/step_batch.h"
#include "kernels/attention_plan.h"
#include "kernels/stream.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"
#include "models/decoder/decoder.h"
#include "models/layers/weight_memory.h"
#include "models/vision/vision_tower.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// A plan with what its ids stand for, looked up by the thread that owns the tables.
struct RunnableStep {
  scheduler::StepPlan plan;
  std::vector<EncodeInput> inputs;  // one for each encode
};

class StepRunner {
 public:
  // Tower or decoder are null where no role needs them; a plan that does is a CHECK.
  struct Parts {
    std::unique_ptr<models::WeightMemory> weights;  // of both models
    std::unique_ptr<models::VisionTower> vision;
    std::unique_ptr<models::Decoder> decoder;
    std::unique_ptr<kernels::ThreadPool> pool;
    const PagedPool* kv = nullptr;  // both outlive the runner; other threads copy from and to them
    const PagedPool* embeddings = nullptr;
  };

  explicit StepRunner(Parts parts) : parts_(std::move(parts)) {}

  // A step of the language lane; the result without its time. A plan that names memory outside the
  // pools, or a step that it may not follow, is a CHECK: the planner is ours.
  scheduler::StepResult Run(const scheduler::StepPlan& plan);
  void Encode(const scheduler::EncodeRow& row, const EncodeInput& input);

 private:
  // Logits and errors of the rows, to logits_ and errors_. The arrays lie in block_.
  StepArrays Forward(const scheduler::StepPlan& plan);
  // A stream whose workspace has room for `bytes`; what an earlier one had in it is gone.
  kernels::Stream StreamWith(int64_t bytes);

  Parts parts_;
  HostMemory scratch_;
  std::unique_ptr<kernels::Workspace> workspace_;
  std::vector<std::byte> block_;
  kernels::AttentionPlan attention_;
  // Stage schedulers put at most 64 rows into a step.
  static constexpr int32_t kMostSampled = 4096;
  SampledRing ring_{kMostSampled};
  std::vector<int32_t> sampled_ = std::vector<int32_t>(SampledRing::kSteps * kMostSampled, -1);
  std::vector<int32_t> errors_;  // by row of the plan
  std::vector<float> logits_;    // [sampled rows, vocab_size], in the plan's order
  std::vector<kernels::SampleResult> drawn_;
};

}  // namespace triptych::engine
