#pragma once

// The CPU back end: one engine thread runs plans in the order of submission and answers each with
// its result. See executor.h for who may call what.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "engine/cpu/step_runner.h"
#include "engine/executor.h"
#include "engine/memory/host_memory.h"

namespace triptych::engine {

struct CpuExecutorOptions {
  std::string model_dir;
  int threads = 2;  // the engine thread included
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
  // Loads the model (seconds for a large one) and starts the thread. `clock` outlives the executor;
  // `on_result` is called on the engine thread. Errors as the loaders'; INVALID_ARGUMENT for sizes
  // below 1, RESOURCE_EXHAUSTED when the regions cannot be had.
  static absl::StatusOr<std::unique_ptr<CpuExecutor>> Create(const CpuExecutorOptions& options,
                                                             const base::Clock& clock,
                                                             OnResult on_result);
  // Runs what was submitted, then stops.
  ~CpuExecutor() override;

  const Capacity& capacity() const override { return capacity_; }
  void ProvidePatches(scheduler::TaskId task, EncodeInput input) override;
  void DropPatches(scheduler::TaskId task) override;
  const TransferRegions& transfer_regions() const override { return regions_; }
  void Submit(scheduler::StepPlan plan) override;

 private:
  CpuExecutor(const base::Clock& clock, OnResult on_result)
      : clock_(clock), on_result_(std::move(on_result)), queue_(kMaxStepsInFlight) {}
  void Loop();

  // Two in flight, and one whose result is being handed over.
  static constexpr size_t kMaxStepsInFlight = 3;

  Capacity capacity_;
  HostMemory staging_, landing_;
  TransferRegions regions_;
  const base::Clock& clock_;
  const OnResult on_result_;
  // Owner thread only. Plans carry shared references: a step keeps its patches (shared with
  // DropPatches) until it has run.
  absl::flat_hash_map<scheduler::TaskId, std::shared_ptr<const EncodeInput>> patches_;
  base::BoundedQueue<RunnableStep> queue_;
  std::unique_ptr<StepRunner> runner_;  // engine thread only, once it has started
  std::thread thread_;
};

}  // namespace triptych::engine
