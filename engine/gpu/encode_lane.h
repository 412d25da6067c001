#pragma once

// Runs encode steps on a CUDA device: all items of a step are one batch of the vision tower, whose
// frames and arrays pass through pinned memory. Its stream yields to the language lane's. Owned and
// called by one launch thread.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "engine/executor.h"
#include "engine/gpu/completion_queue.h"
#include "engine/gpu/copy_lane.h"
#include "engine/gpu/device_lane.h"
#include "engine/gpu/device_turns.h"
#include "engine/gpu/gpu_pools.h"
#include "models/vision/vision_tower.h"

namespace triptych::engine {

class EncodeLane {
 public:
  struct Config {
    int device = 0;
    int64_t max_patches = 0;       // of a usual step; a larger item makes the lane grow
    DeviceTurns* turns = nullptr;  // borrowed: every step is one
  };
  using OnResult = std::function<void(scheduler::StepResult)>;

  // Borrows the tower, the pools and the queue.
  static absl::StatusOr<std::unique_ptr<EncodeLane>> Create(const Config& config,
                                                            const models::VisionTower& tower,
                                                            const GpuPools& pools,
                                                            CompletionQueue* completions,
                                                            OnResult on_result);

  // Enqueues a step whose items have these inputs, one each; at most two are in flight. Errors of
  // the device. Items whose grid is not that of their row are a CHECK.
  absl::Status Launch(scheduler::StepPlan plan, const std::vector<EncodeInput>& inputs);
  // As LanguageLane::WaitFor.
  absl::Status WaitFor(scheduler::StepId step, CopyLane* copies);

 private:
  static constexpr int kSlots = 3;
  struct Slot {
    base::PinnedMemory block, frames;
    std::optional<base::CudaEvent> begin, end;  // with timing
  };

  EncodeLane(const Config& config, const models::VisionTower& tower, const GpuPools& pools,
             CompletionQueue* completions, OnResult on_result)
      : config_(config),
        tower_(tower),
        pools_(pools),
        completions_(*completions),
        on_result_(std::move(on_result)) {}
  absl::Status Reserve(Slot* slot, int64_t block_bytes, int64_t frame_bytes, int64_t patches);
  // What the tower is called with, its arrays and frames on their way to the device.
  struct Packed {
    models::VisionBatch batch;
    std::vector<models::VisionFrames> frames;
  };
  absl::StatusOr<Packed> Pack(const scheduler::StepPlan& plan,
                              const std::vector<EncodeInput>& inputs, Slot* slot);

  const Config config_;
  const models::VisionTower& tower_;
  const GpuPools& pools_;
  CompletionQueue& completions_;
  const OnResult on_result_;
  std::unique_ptr<DeviceLane> lane_;
  base::DeviceMemory block_, frames_;  // of the step that runs: copies are in stream order
  Slot slots_[kSlots];
  uint64_t launched_ = 0;
  std::atomic<uint64_t> finished_{0};
};

}  // namespace triptych::engine
