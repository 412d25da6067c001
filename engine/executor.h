#pragma once

// Runs plans on one device. It knows no transport and takes no decision: which block, slot or
// buffer is used for what is in the plan. Back ends: engine/cpu, engine/gpu, engine/modelled.
//
// Lanes: language steps run one after another, and so do encode steps; the two lanes, imports and
// exports run beside each other and never wait for each other, but an export for the step that it
// names. So the device may copy while it computes, and encodes hold up no token for long: on a CPU
// for one item at most (docs/decisions/0009), on a GPU decode steps run beside them.
//
// Thread rule: one owner thread calls every method but ChecksumLanded, which any may call. Events
// come from the engine's own threads, several of them (or, modelled in virtual time, from whoever
// drives it), and must not block.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/grid.h"
#include "base/memory_ref.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// What a device can hold; the stage scheduler plans inside it.
struct Capacity {
  // What peers must share beside the model: storage types and arithmetic; no dots. The last part of
  // a fingerprint.
  std::string compute_format;
  int32_t kv_block_tokens = 16;
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;  // one visual token each, in whole pages
  int32_t embedding_page_slots = 64;
  int64_t kv_bytes_per_token = 0;  // all layers, K and V
  int64_t embedding_bytes_per_token = 0;
  int32_t num_layers = 0;
  int32_t max_position = 0;  // longest sequence in tokens
};

// Frames of one item at its grid's size, 8-bit RGB (models/processor Frames). No pixels for a
// modelled device.
struct EncodeInput {
  base::Grid grid;
  int num_frames = 0;
  std::vector<uint8_t> pixels;
};

// Memory of pieces to be sent and of pieces received.
struct TransferRegions {
  base::MemoryRef staging, landing;

  base::MemoryRef Staging(const scheduler::PieceBuffer& buffer) const {
    return staging.Sub(buffer.offset, buffer.bytes);
  }
  base::MemoryRef Landing(const scheduler::PieceBuffer& buffer) const {
    return landing.Sub(buffer.offset, buffer.bytes);
  }
};

struct ExecutorEvents {
  // In the order of submission within a lane.
  std::function<void(scheduler::StepResult)> on_result;
  // In the order of submission.
  std::function<void(scheduler::BufferId)> on_import;
  // In any order, also before the result of the step that wrote it.
  std::function<void(scheduler::ExportResult)> on_export;
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const Capacity& capacity() const = 0;
  // Where the buffers of pieces lie; the stage scheduler cuts them out. Constant, so that a
  // transport may register them once.
  virtual const TransferRegions& transfer_regions() const = 0;

  // Takes what a later EncodeRow of `task` reads, once: the step that encodes it uses it up.
  // Replaces an earlier input of that task.
  virtual void ProvideInput(scheduler::TaskId task, EncodeInput input) = 0;
  // Forgets it; unknown tasks are fine. Steps already submitted keep what they need.
  virtual void DropInput(scheduler::TaskId task) = 0;

  // Enqueues a plan; at most two of each lane are in flight.
  virtual void Submit(scheduler::StepPlan plan) = 0;
  // Enqueue a copy of one piece, at most 64 of each kind. The checksum of an export is computed on
  // the way.
  virtual void Import(scheduler::ImportSpec spec) = 0;
  virtual void Export(scheduler::ExportSpec spec) = 0;
  // The checksum of a piece that has landed; `on_checksum` is called as an event is, or from
  // within. At most one for each piece that is being received.
  virtual void ChecksumLanded(scheduler::PieceBuffer buffer,
                              std::function<void(uint64_t)> on_checksum) = 0;
};

}  // namespace triptych::engine
