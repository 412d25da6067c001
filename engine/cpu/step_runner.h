#pragma once

// Runs the rows of one plan, or one item's encode, on the calling thread and its pool. It owns the
// model and the physical pools; it knows no queue and no clock. One thread.

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "engine/executor.h"
#include "engine/memory/cpu_pools.h"
#include "kernels/thread_pool.h"
#include "models/decoder/decoder.h"
#include "models/vision/vision_tower.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// A plan with what its ids stand for, looked up by the thread that owns the tables.
struct RunnableStep {
  scheduler::StepPlan plan;
  // One for each encode; shared with the table of provided patches, which may drop them earlier.
  std::vector<std::shared_ptr<const EncodeInput>> patches;
};

class StepRunner {
 public:
  struct Parts {
    std::unique_ptr<models::VisionTower> vision;
    std::unique_ptr<models::Decoder> decoder;
    std::unique_ptr<kernels::ThreadPool> pool;
    std::unique_ptr<CpuKvPool> kv;
    std::unique_ptr<CpuEmbeddingPool> embeddings;
  };

  explicit StepRunner(Parts parts) : parts_(std::move(parts)), stream_{.pool = parts_.pool.get()} {}

  // A step of the language lane; the result without its time. A plan that names memory outside the
  // pools, or a step that it may not follow, is a CHECK: the planner is ours.
  scheduler::StepResult Run(const scheduler::StepPlan& plan);
  void Encode(const scheduler::EncodeRow& row, const EncodeInput& input);

 private:
  int32_t TokenOf(const scheduler::SampledBy& source) const;
  // `logits` [rows that sample, vocab_size].
  std::vector<scheduler::RowResult> Sample(const scheduler::StepPlan& plan,
                                           const std::vector<float>& logits);

  Parts parts_;
  const kernels::Stream stream_;
  // What recent steps sampled (a token a row, -1 where none), for rows that follow them.
  struct Sampled {
    scheduler::StepId step;
    std::vector<int32_t> tokens;
  };
  std::deque<Sampled> recent_;
};

}  // namespace triptych::engine
