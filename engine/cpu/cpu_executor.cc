#include "engine/cpu/cpu_executor.h"

#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "models/config/model_config.h"
#include "models/weights/checkpoint.h"

namespace triptych::engine {
namespace {

constexpr int32_t kSlotsPerPage = 64;

int32_t SlotPages(const CpuExecutorOptions& options) {
  return (options.embedding_slots + kSlotsPerPage - 1) / kSlotsPerPage;
}

Capacity MakeCapacity(const CpuExecutorOptions& options, const models::ModelConfig& config) {
  return {.kv_block_tokens = options.kv_block_tokens,
          .kv_blocks = options.kv_blocks,
          .embedding_slots = SlotPages(options) * kSlotsPerPage,
          .embedding_page_slots = kSlotsPerPage,
          .kv_bytes_per_token = int64_t{2} * config.num_layers * config.num_kv_heads *
                                config.head_dim * kernels::SizeOf(options.kv_type),
          .embedding_bytes_per_token = int64_t{4} * config.hidden_size,
          .num_layers = config.num_layers,
          .max_position = config.max_position_embeddings};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuExecutor>> CpuExecutor::Create(const CpuExecutorOptions& options,
                                                                 const base::Clock& clock,
                                                                 OnResult on_result) {
  if (options.threads < 1 || options.kv_block_tokens < 1 || options.kv_blocks < 1 ||
      options.embedding_slots < 1) {
    return absl::InvalidArgumentError("CpuExecutor: threads and pool sizes must be at least 1");
  }
  ASSIGN_OR_RETURN(const models::ModelConfig config, models::LoadModelConfig(options.model_dir));
  ASSIGN_OR_RETURN(const std::unique_ptr<models::Checkpoint> checkpoint,
                   models::Checkpoint::Open(options.model_dir));
  ASSIGN_OR_RETURN(std::unique_ptr<models::VisionTower> vision,
                   models::VisionTower::Load(*checkpoint, config.vision));
  ASSIGN_OR_RETURN(std::unique_ptr<models::Decoder> decoder,
                   models::Decoder::Load(*checkpoint, config));
  const kernels::KvLayout layout{.block_tokens = options.kv_block_tokens,
                                 .kv_heads = config.num_kv_heads,
                                 .head_dim = config.head_dim,
                                 .dtype = options.kv_type};
  std::unique_ptr<CpuExecutor> executor(new CpuExecutor(clock, std::move(on_result)));
  ASSIGN_OR_RETURN(executor->staging_, HostMemory::Map(options.staging_bytes));
  ASSIGN_OR_RETURN(executor->landing_, HostMemory::Map(options.landing_bytes));
  executor->regions_ = {executor->staging_.ref(), executor->landing_.ref()};
  executor->capacity_ = MakeCapacity(options, config);
  executor->runner_ = std::make_unique<StepRunner>(StepRunner::Parts{
      .vision = std::move(vision),
      .decoder = std::move(decoder),
      .pool = std::make_unique<kernels::ThreadPool>(options.threads),
      .kv = std::make_unique<CpuKvPool>(layout, options.kv_blocks, config.num_layers),
      .embeddings = std::make_unique<CpuEmbeddingPool>(SlotPages(options), kSlotsPerPage,
                                                       config.hidden_size)});
  executor->thread_ = std::thread([raw = executor.get()] { raw->Loop(); });
  return executor;
}

CpuExecutor::~CpuExecutor() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

void CpuExecutor::ProvidePatches(scheduler::TaskId task, EncodeInput input) {
  patches_[task] = std::make_shared<const EncodeInput>(std::move(input));
}

void CpuExecutor::DropPatches(scheduler::TaskId task) { patches_.erase(task); }

void CpuExecutor::Submit(scheduler::StepPlan plan) {
  RunnableStep step{.plan = std::move(plan)};
  for (const scheduler::EncodeRow& encode : step.plan.encodes) {
    const auto found = patches_.find(encode.task);
    CHECK_TRUE(found != patches_.end());
    step.patches.push_back(found->second);
  }
  for (const scheduler::ImportSpec& import : step.plan.imports) {
    step.import_bytes.push_back(
        regions_.landing.Sub(import.buffer.offset, import.buffer.bytes).HostBytes());
  }
  for (const scheduler::ExportSpec& spec : step.plan.exports) {
    step.export_bytes.push_back(
        regions_.staging.Sub(spec.buffer.offset, spec.buffer.bytes).HostBytes());
  }
  CHECK_TRUE(queue_.TryPush(std::move(step)));
}

void CpuExecutor::Loop() {
  while (std::optional<RunnableStep> step = queue_.Pop()) {
    const base::TimePoint start = clock_.Now();
    scheduler::StepResult result = runner_->Run(*step);
    result.seconds = base::ToSeconds(clock_.Now() - start);
    step.reset();
    on_result_(std::move(result));
  }
}

}  // namespace triptych::engine
