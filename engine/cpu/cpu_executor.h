#pragma once

// The CPU back end. One thread computes: steps of both lanes, in turn by the time that each has
// used, an item of an encode step at a time, so that neither lane waits for more than that. Another
// thread copies pieces and takes checksums. See executor.h for who may call what.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/cpu/piece_copier.h"
#include "engine/cpu/step_runner.h"
#include "engine/executor.h"
#include "engine/memory/host_memory.h"
#include "engine/memory/paged_pool.h"
#include "models/config/model_config.h"
#include "models/weights/weight_source.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::engine {

struct CpuExecutorOptions {
  // Decide which models are loaded and which pools there are: no KV without prefill or decode, no
  // embeddings without encode or prefill.
  scheduler::Roles roles{(1 << scheduler::kNumStages) - 1};
  int threads = 2;  // of computing, the engine's own included
  int32_t kv_block_tokens = 16;
  int32_t kv_blocks = 4096;
  int32_t embedding_slots = 8192;  // at least so many: whole pages of 64
  // Of the regions of pieces; resident where they were used.
  int64_t staging_bytes = int64_t{256} << 20;
  int64_t landing_bytes = int64_t{256} << 20;
  kernels::DType kv_type = kernels::DType::kFloat32;
};

class CpuExecutor final : public Executor {
 public:
  // Loads the model (seconds for a large one) and starts the threads. `weights` may be closed
  // afterwards; `clock` outlives the executor. Errors as the loaders'; INVALID_ARGUMENT for sizes
  // below 1, RESOURCE_EXHAUSTED when the regions cannot be had.
  static absl::StatusOr<std::unique_ptr<CpuExecutor>> Create(const CpuExecutorOptions& options,
                                                             const models::ModelConfig& config,
                                                             const models::WeightSource& weights,
                                                             const base::Clock& clock,
                                                             ExecutorEvents events);
  // Runs what was submitted, then stops.
  ~CpuExecutor() override;

  const Capacity& capacity() const override { return capacity_; }
  const TransferRegions& transfer_regions() const override { return regions_; }
  void ProvideInput(scheduler::TaskId task, EncodeInput input) override;
  void DropInput(scheduler::TaskId task) override;
  void Submit(scheduler::StepPlan plan) override;
  void Import(scheduler::ImportSpec spec) override;
  void Export(scheduler::ExportSpec spec) override;
  void ChecksumLanded(scheduler::PieceBuffer buffer,
                      std::function<void(uint64_t)> on_checksum) override;

 private:
  // A step under way, and what it has used of the compute thread.
  struct Running {
    RunnableStep step;
    size_t items_done = 0;  // of an encode step
    base::Duration used{};
  };
  struct LaneOfSteps {
    std::deque<Running> steps;
    base::Duration used{};  // of the compute thread, against the other lane's
    scheduler::StepId done;
  };

  CpuExecutor(const base::Clock& clock, ExecutorEvents events)
      : clock_(clock), events_(std::move(events)) {}
  void Compute();
  Running* Next(scheduler::Lane* lane);
  bool RunPart(Running* running, scheduler::StepResult* result);
  void Finish(scheduler::Lane lane, scheduler::StepResult result);
  void Copy();
  void Enqueue(std::function<void()> copy);
  void EnqueueExport(scheduler::ExportSpec spec);
  bool IsWritten(const scheduler::ExportSpec& spec) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Imports, exports and checksums: as many as the landing region has aligned buffers.
  static constexpr size_t kMaxCopies = 1 << 21;

  Capacity capacity_;
  HostMemory staging_, landing_;
  PagedPool kv_, embeddings_;
  TransferRegions regions_;
  const base::Clock& clock_;
  const ExecutorEvents events_;
  absl::flat_hash_map<scheduler::TaskId, EncodeInput> inputs_;  // owner thread only
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  LaneOfSteps lanes_[scheduler::kNumLanes] ABSL_GUARDED_BY(mutex_);
  std::deque<scheduler::ExportSpec> waiting_exports_ ABSL_GUARDED_BY(mutex_);
  base::BoundedQueue<std::function<void()>> copies_{kMaxCopies};
  std::unique_ptr<StepRunner> runner_;   // compute thread only, once it has started
  std::unique_ptr<PieceCopier> copier_;  // copy thread only
  std::thread compute_thread_, copy_thread_;
};

}  // namespace triptych::engine
