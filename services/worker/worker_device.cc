#include "services/worker/worker_device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/cpu/cpu_executor.h"
#include "engine/gpu/gpu_executor.h"
#include "engine/modelled/modelled_executor.h"
#include "models/weights/checkpoint.h"
#include "models/weights/dummy_weights.h"
#include "services/runtime/served_numerics.h"

namespace triptych::services {
namespace {

constexpr int64_t kFloatBytes = 4;

int ThreadsOf(const WorkerOptions& options) {
  if (options.threads > 0) return static_cast<int>(options.threads);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// The capacity that the CPU engine would have, for a device that only pretends.
engine::Capacity ModelledCapacity(const WorkerOptions& options, const models::ModelConfig& config) {
  engine::Capacity capacity;
  capacity.compute_format = "modelled";
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
  return std::make_unique<engine::ModelledExecutor>(std::move(modelled), clock, std::move(events));
}

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeCpu(const WorkerOptions& options,
                                                          const models::ModelConfig& config,
                                                          const models::WeightSource& weights,
                                                          const base::Clock& clock,
                                                          engine::ExecutorEvents events) {
  engine::CpuExecutorOptions cpu;
  if (!scheduler::ParseRoles(options.roles, &cpu.roles)) {
    return absl::InvalidArgumentError("--roles: want encode, prefill, decode, joined by +");
  }
  cpu.threads = ThreadsOf(options);
  cpu.kv_block_tokens = kKvBlockTokens;
  cpu.kv_blocks = static_cast<int32_t>(options.kv_blocks);
  cpu.embedding_slots = static_cast<int32_t>(options.embedding_slots);
  return engine::CpuExecutor::Create(cpu, config, weights, clock, std::move(events));
}

#ifdef TRIPTYCH_GPU_ENGINE
// All tables of a directory, one after another.
absl::StatusOr<std::string> ReadChoices(const std::string& dir) {
  std::string text;
  if (dir.empty()) return text;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().extension() != ".txt") continue;
    std::ifstream file(entry.path());
    text.append(std::istreambuf_iterator<char>(file), {});
    text += '\n';
  }
  if (error) return absl::NotFoundError(absl::StrCat("--tuning-dir: cannot read ", dir));
  return text;
}

// The device is lost for this process: one line, and the cluster does the rest.
[[noreturn]] void EndProcess(const absl::Status& status) {
  std::fprintf(stderr, "triptych-worker: the device failed: %s\n",
               std::string(status.message()).c_str());
  std::_Exit(4);
}
#endif

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeGpu(
    [[maybe_unused]] const WorkerOptions& options,
    [[maybe_unused]] const models::ModelConfig& config,
    [[maybe_unused]] const models::WeightSource& weights,
    [[maybe_unused]] engine::ExecutorEvents events) {
#ifdef TRIPTYCH_GPU_ENGINE
  engine::GpuOptions gpu;
  if (!scheduler::ParseRoles(options.roles, &gpu.roles)) {
    return absl::InvalidArgumentError("--roles: want encode, prefill, decode, joined by +");
  }
  gpu.device = options.cuda_device();
  gpu.memory_utilization = options.gpu_memory_utilization;
  gpu.kv_block_tokens = kKvBlockTokens;
  gpu.kv_blocks = options.kv_blocks;
  gpu.embedding_slots = static_cast<int32_t>(options.embedding_slots);
  gpu.max_step_tokens = static_cast<int32_t>(options.step_tokens);
  gpu.max_patches = options.encode_patches_a_step();
  gpu.threads = ThreadsOf(options);
  if (options.transfers_on_device()) gpu.transfer_memory = engine::TransferMemory::kDevice;
  ASSIGN_OR_RETURN(gpu.decode_choices, ReadChoices(options.tuning_dir));
  return engine::MakeGpuExecutor(gpu, config, weights, std::move(events), EndProcess);
#else
  return absl::UnimplementedError("this build has no CUDA: ./run build gpu");
#endif
}

}  // namespace

absl::StatusOr<ServedWeights> OpenWeights(const WorkerOptions& options) {
  const int threads = ThreadsOf(options);
  ServedWeights weights;
  if (options.load_format == "dummy") {
    weights.source =
        std::make_unique<models::DummyWeights>(static_cast<uint64_t>(options.dummy_seed), threads);
  } else {
    ASSIGN_OR_RETURN(weights.source, models::Checkpoint::Open(options.model));
  }
  weights.digest = weights.source->Digest(threads);
  return weights;
}

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const WorkerOptions& options,
                                                               const models::ModelConfig& config,
                                                               const models::WeightSource& weights,
                                                               const base::Clock& clock,
                                                               engine::ExecutorEvents events) {
  if (options.device == "modelled") {
    return MakeModelled(options, config, clock, std::move(events));
  }
  if (options.cuda_device() >= 0) return MakeGpu(options, config, weights, std::move(events));
  return MakeCpu(options, config, weights, clock, std::move(events));
}

}  // namespace triptych::services
