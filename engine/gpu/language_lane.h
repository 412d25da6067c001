#pragma once

// Runs language steps on a CUDA device: packs a plan into a pinned block, copies it, launches the
// forward and the draw, and lets a completion queue answer when the results are back. Steps of
// decode rows alone are replayed as captured graphs. Exports of KV follow the steps that write it.
// Owned and called by one launch thread; the device never waits for the host between two steps in
// flight.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "engine/gpu/completion_queue.h"
#include "engine/gpu/copy_lane.h"
#include "engine/gpu/decode_graphs.h"
#include "engine/gpu/device_lane.h"
#include "engine/gpu/device_turns.h"
#include "engine/gpu/gpu_pools.h"
#include "engine/gpu/step_slot.h"
#include "engine/step_batch.h"
#include "models/decoder/decoder.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

class LanguageLane {
 public:
  struct Config {
    int device = 0;
    int32_t max_rows = 64;
    int64_t max_tokens = 0;  // of a step
    int64_t max_pages = 0;   // of one row
    int32_t embedding_page_slots = 64;
    kernels::GemmChoices* choices = nullptr;  // borrowed; null: by rule
    DeviceTurns* turns = nullptr;             // borrowed: a step with a prefill is one
  };
  using OnResult = std::function<void(scheduler::StepResult)>;

  // Borrows the decoder, the pools and the queue, which outlive it. Captures the decode graphs,
  // runs the largest step once and checks what it took of the workspace.
  static absl::StatusOr<std::unique_ptr<LanguageLane>> Create(const Config& config,
                                                              const models::Decoder& decoder,
                                                              const GpuPools& pools,
                                                              CompletionQueue* completions,
                                                              OnResult on_result);

  // Enqueues a step; at most two are in flight. Errors of the device: the process is lost then.
  absl::Status Launch(scheduler::StepPlan plan);
  // Later work of `copies` starts after step `step`, if that is still under way.
  absl::Status WaitFor(scheduler::StepId step, CopyLane* copies);

  // Bytes of a workspace for such steps.
  static int64_t WorkspaceBytes(const Config& config, const models::Decoder& decoder);

 private:
  static constexpr int kSlots = SampledRing::kSteps;

  LanguageLane(const Config& config, const models::Decoder& decoder, const GpuPools& pools,
               CompletionQueue* completions, OnResult on_result);
  // The arrays of a plan on the host and on the device, copied.
  struct Packed {
    StepBatch batch;
    StepArrays host, device;
  };
  // Two steps are in flight and a plan must not be made anew under its step: graphs for even and
  // for odd steps, each with an attention plan a bucket. The launches of an attention over long
  // contexts are others than those over short ones.
  struct Graphs {
    int64_t decode_context = 0;                       // what the plans are made for
    std::map<int32_t, kernels::AttentionPlan> plans;  // by bucket
    std::unique_ptr<DecodeGraphs> graphs;
  };
  static constexpr int kContexts = 2;
  absl::Status Allocate();
  absl::Status WarmUp();
  absl::Status CaptureGraphs(Graphs* graphs);
  // The forward of `rows` decode rows that do nothing, for a capture.
  absl::Status EnqueueDecode(int32_t rows, Graphs* graphs);
  absl::Status RunDecode(const Packed& packed, Graphs* graphs);
  // The device's block for so many bytes: that of the graphs, or a larger one.
  absl::StatusOr<base::MemoryRef> BlockFor(int64_t bytes, StepSlot* slot);
  absl::StatusOr<Packed> Pack(const scheduler::StepPlan& plan, const BatchLimits& limits,
                              int32_t bucket, StepSlot* slot);
  absl::Status RunEager(const Packed& packed, StepSlot* slot);
  // The forward and the draw of a step, between its two events.
  absl::Status Run(const Packed& packed, int32_t ring_begin, StepSlot* slot, Graphs* replay);
  absl::Status Sample(const Packed& packed, int32_t ring_begin, StepSlot* slot);
  models::DecoderBatch BatchOf(const StepBatch& batch, const StepArrays& device,
                               const kernels::AttentionPlan& attention) const;
  scheduler::StepResult ResultOf(const scheduler::StepPlan& plan, const StepSlot& slot) const;

  const Config config_;
  const models::Decoder& decoder_;
  const GpuPools& pools_;
  CompletionQueue& completions_;
  const OnResult on_result_;
  const BatchShape shape_;
  std::unique_ptr<DeviceLane> lane_;
  base::DeviceMemory block_;        // the arrays of the step that runs: copies are in stream order
  base::DeviceMemory large_block_;  // for steps with long lists of biases and counts
  base::DeviceMemory logits_;       // [max_rows, vocab_size] float32
  base::DeviceMemory results_;      // as StepSlot::results
  base::DeviceMemory sampled_;      // the ring
  SampledRing ring_;
  StepSlot slots_[kSlots];
  Graphs graphs_[2][kContexts];
  uint64_t launched_ = 0;
  std::atomic<uint64_t> finished_{0};
};

}  // namespace triptych::engine
