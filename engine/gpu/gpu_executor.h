#pragma once

// The CUDA back end: a launch thread for each lane, whose work follows each other on a stream of
// its own, and threads that tell when work is done. See executor.h for who may call what.
//
// Fail-stop: a CUDA error makes the device useless to the process, so it is told once and the
// process has to end; the cluster does the rest.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/executor.h"
#include "engine/memory/memory_budget.h"
#include "models/config/model_config.h"
#include "models/weights/weight_source.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::engine {

// Where pieces are staged and land: on the device for a transport that reaches it, in pinned host
// memory for one that moves host memory.
enum class TransferMemory : uint8_t { kHost, kDevice };

struct GpuOptions {
  int device = 0;
  // Decide what is loaded and which pools there are, as on the CPU.
  scheduler::Roles roles{(1 << scheduler::kNumStages) - 1};
  double memory_utilization = 0.9;
  int32_t kv_block_tokens = 16;
  int64_t kv_blocks = 0;  // 0: what fits
  int32_t embedding_slots = 65536;
  int32_t max_rows = 64;           // of a step
  int32_t max_step_tokens = 8192;  // of all rows of a step
  int64_t max_patches = 65536;     // of an encode step; one larger item still runs
  int64_t max_piece_bytes = int64_t{64} << 20;
  TransferMemory transfer_memory = TransferMemory::kHost;
  int64_t staging_bytes = int64_t{256} << 20;
  int64_t landing_bytes = int64_t{256} << 20;
  // How decode kernels are cut, in the words of kernels/decode_choices.h; empty: by rule.
  std::string decode_choices;
  int threads = 8;  // that fill pinned buffers while the weights are loaded
};

// `on_failure` is called at most a few times, on any thread; the executor computes nothing more.
// Errors: UNAVAILABLE without such a device, RESOURCE_EXHAUSTED with the sums when the memory does
// not suffice, the loaders' errors, INTERNAL for CUDA's. `weights` may be closed afterwards.
absl::StatusOr<std::unique_ptr<Executor>> MakeGpuExecutor(
    const GpuOptions& options, const models::ModelConfig& config,
    const models::WeightSource& weights, ExecutorEvents events,
    std::function<void(const absl::Status&)> on_failure);

}  // namespace triptych::engine
