#include "services/worker/worker_device.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/status.h"
#include "engine/cpu/cpu_executor.h"
#include "engine/modelled/modelled_device.h"
#include "services/runtime/served_numerics.h"

namespace triptych::services {
namespace {

constexpr int64_t kFloatBytes = 4;

// The capacity that the CPU engine would have, for a device that only pretends.
engine::Capacity ModelledCapacity(const WorkerOptions& options, const models::ModelConfig& config) {
  engine::Capacity capacity;
  capacity.kv_block_tokens = kKvBlockTokens;
  capacity.kv_blocks = static_cast<int32_t>(options.kv_blocks);
  const int32_t page_slots = capacity.embedding_page_slots;
  const auto slots = static_cast<int32_t>(options.embedding_slots);
  capacity.embedding_slots = (slots + page_slots - 1) / page_slots * page_slots;
  capacity.kv_bytes_per_token =
      kFloatBytes * 2 * config.num_layers * config.num_kv_heads * config.head_dim;
  capacity.embedding_bytes_per_token = kFloatBytes * config.hidden_size;
  capacity.num_layers = config.num_layers;
  capacity.max_position = config.max_position_embeddings;
  return capacity;
}

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeModelled(const WorkerOptions& options,
                                                               const models::ModelConfig& config,
                                                               const base::Clock& clock,
                                                               engine::ExecutorEvents events) {
  engine::ModelledConfig modelled;
  modelled.capacity = ModelledCapacity(options, config);
  modelled.tokens.stop_token_ids = config.eos_token_ids;
  // Below the control words: ids that have a text.
  modelled.tokens.vocab_size = config.eos_token_ids.front();
  if (!options.cost.empty()) {
    ASSIGN_OR_RETURN(modelled.cost, engine::ReadCostModel(options.cost));
  }
  return std::make_unique<engine::ModelledDevice>(std::move(modelled), clock, std::move(events));
}

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeCpu(const WorkerOptions& options,
                                                          const base::Clock& clock,
                                                          engine::ExecutorEvents events) {
  engine::CpuExecutorOptions cpu;
  cpu.model_dir = options.model;
  cpu.threads = static_cast<int>(options.threads);
  if (cpu.threads == 0) cpu.threads = std::max(1u, std::thread::hardware_concurrency());
  cpu.kv_block_tokens = kKvBlockTokens;
  cpu.kv_blocks = static_cast<int32_t>(options.kv_blocks);
  cpu.embedding_slots = static_cast<int32_t>(options.embedding_slots);
  return engine::CpuExecutor::Create(cpu, clock, std::move(events));
}

}  // namespace

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const WorkerOptions& options,
                                                               const models::ModelConfig& config,
                                                               const base::Clock& clock,
                                                               engine::ExecutorEvents events) {
  if (options.device == "modelled") {
    return MakeModelled(options, config, clock, std::move(events));
  }
  return MakeCpu(options, clock, std::move(events));
}

}  // namespace triptych::services
