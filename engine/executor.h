#pragma once

// Runs StepPlans on one device. It knows no transport and takes no decision: which block, slot or
// buffer is used for what is in the plan. Back ends: engine/cpu, engine/modelled, later engine/gpu.
//
// Thread rule: every method is called by one owner thread; `on_result` is called by the engine's
// own thread (or, modelled in virtual time, by whoever drives it) and must not block.

#include <cstdint>
#include <functional>
#include <vector>

#include "base/memory_ref.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// What a device can hold; the stage scheduler plans inside it.
struct Capacity {
  int32_t kv_block_tokens = 16;
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;  // one visual token each, in whole pages
  int32_t embedding_page_slots = 64;
  int64_t kv_bytes_per_token = 0;  // all layers, K and V
  int64_t embedding_bytes_per_token = 0;
  int32_t num_layers = 0;
  int32_t max_position = 0;  // longest sequence in tokens
};

// Patches of one item, ready for the vision tower: float32 [grid.patches(), 3 * 2 * 14 * 14] for
// Qwen2.5-VL. Empty for a modelled device.
struct EncodeInput {
  scheduler::Grid grid;
  std::vector<float> patches;
};

// Memory of pieces to be sent and of pieces received.
struct TransferRegions {
  base::MemoryRef staging, landing;
};

class Executor {
 public:
  using OnResult = std::function<void(scheduler::StepResult)>;
  virtual ~Executor() = default;

  virtual const Capacity& capacity() const = 0;

  // Takes the patches that a later EncodeRow of `task` reads; replaces earlier ones of that task.
  virtual void ProvidePatches(scheduler::TaskId task, EncodeInput input) = 0;
  // Forgets them; unknown tasks are fine. Steps already submitted keep what they need.
  virtual void DropPatches(scheduler::TaskId task) = 0;

  // Where the buffers of pieces lie; the stage scheduler cuts them out. Constant, so that a
  // transport may register them once.
  virtual const TransferRegions& transfer_regions() const = 0;

  // Enqueues a plan; at most two are in flight. Results come in the order of submission.
  virtual void Submit(scheduler::StepPlan plan) = 0;
};

}  // namespace triptych::engine
