#pragma once

// What a device's memory is spent on, by arithmetic alone: weights, scratch memory of the largest
// step, captured graphs, the embedding pool, and KV blocks from what is left. No profiling run: the
// sums are checked against the high-water mark of the largest step once at start, by the engine.
// Pure; any thread.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace triptych::engine {

// In bytes, as the device reports them before anything of this process is placed.
struct DeviceMemoryInfo {
  int64_t total = 0;
  int64_t free = 0;
};

// What the model asks of the device, in bytes. 0 where a role does not need it.
struct ModelSizes {
  int64_t weights = 0;
  int64_t kv_per_token = 0;         // all layers, K and V
  int64_t embedding_per_token = 0;  // one slot
  int64_t scratch = 0;              // of the largest steps that run at the same time
  int64_t fixed = 0;                // step inputs, results, graphs, library handles
};

struct MemoryOptions {
  // Of the device's whole memory, how much this process may use; what others hold counts.
  double utilization = 0.9;
  int32_t kv_block_tokens = 16;
  int64_t kv_blocks = 0;        // 0: as many as fit; ignored where kv_per_token is 0
  int64_t embedding_slots = 0;  // ignored where embedding_per_token is 0
};

struct MemoryPlan {
  int64_t weights = 0, scratch = 0, fixed = 0, embeddings = 0, kv = 0;
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;
  int64_t left = 0;  // of what the process may use
  // "weights 15.2 GiB, scratch ..." on one line, for the log.
  std::string ToString() const;
};

// RESOURCE_EXHAUSTED, with every sum in the message, when less than `kMinKvBlocks` blocks (or the
// asked number) fit. INVALID_ARGUMENT: a utilization outside (0, 1], or a negative size.
inline constexpr int64_t kMinKvBlocks = 64;
absl::StatusOr<MemoryPlan> PlanMemory(const ModelSizes& sizes, const DeviceMemoryInfo& device,
                                      const MemoryOptions& options);

}  // namespace triptych::engine
