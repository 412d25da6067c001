#include "engine/cpu/cpu_executor.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace triptych::engine {

using scheduler::Lane;

namespace {

using scheduler::Stage;

constexpr int32_t kSlotsPerPage = 64;

// The version rises when the same weights give other bits.
const char* FormatOf(base::DType kv_type) {
  return kv_type == base::DType::kFloat32 ? "float32-1" : "float32-1-kv-bfloat16";
}

Capacity MakeCapacity(const CpuExecutorOptions& options, const models::ModelConfig& config) {
  const scheduler::Roles& roles = options.roles;
  const bool has_kv = roles.has(Stage::kPrefill) || roles.has(Stage::kDecode);
  const bool has_embeddings = roles.has(Stage::kEncode) || roles.has(Stage::kPrefill);
  const int32_t pages = (options.embedding_slots + kSlotsPerPage - 1) / kSlotsPerPage;
  return {.compute_format = FormatOf(options.kv_type),
          .kv_block_tokens = options.kv_block_tokens,
          .kv_blocks = has_kv ? options.kv_blocks : 0,
          .embedding_slots = has_embeddings ? pages * kSlotsPerPage : 0,
          .embedding_page_slots = kSlotsPerPage,
          .kv_bytes_per_token = int64_t{2} * config.num_layers * config.num_kv_heads *
                                config.head_dim * kernels::SizeOf(options.kv_type),
          .embedding_bytes_per_token = int64_t{4} * config.hidden_size,
          .num_layers = config.num_layers,
          .max_position = config.max_position_embeddings};
}

// The models that the roles need, without the pools.
absl::StatusOr<StepRunner::Parts> LoadModels(const CpuExecutorOptions& options,
                                             const models::ModelConfig& config,
                                             const models::WeightSource& weights) {
  const models::ModelSpec spec = models::SpecOf(config, weights);
  StepRunner::Parts parts;
  parts.pool = std::make_unique<kernels::ThreadPool>(options.threads);
  parts.weights = std::make_unique<models::HostWeightMemory>(parts.pool.get());
  models::WeightMemory* const memory = parts.weights.get();
  if (options.roles.has(Stage::kEncode)) {
    ASSIGN_OR_RETURN(parts.vision, models::VisionTower::Load(weights, config, spec.tower, memory));
  }
  if (options.roles.has(Stage::kPrefill) || options.roles.has(Stage::kDecode)) {
    ASSIGN_OR_RETURN(parts.decoder, models::Decoder::Load(weights, config, spec.decoder, memory));
  }
  return parts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuExecutor>> CpuExecutor::Create(
    const CpuExecutorOptions& options, const models::ModelConfig& config,
    const models::WeightSource& weights, const base::Clock& clock, ExecutorEvents events) {
  if (options.threads < 1 || options.kv_block_tokens < 1 || options.kv_blocks < 1 ||
      options.embedding_slots < 1) {
    return absl::InvalidArgumentError("CpuExecutor: threads and pool sizes must be at least 1");
  }
  ASSIGN_OR_RETURN(StepRunner::Parts parts, LoadModels(options, config, weights));
  const kernels::KvLayout layout{.block_tokens = options.kv_block_tokens,
                                 .kv_heads = config.num_kv_heads,
                                 .head_dim = config.head_dim,
                                 .dtype = options.kv_type};
  std::unique_ptr<CpuExecutor> executor(new CpuExecutor(clock, std::move(events)));
  ASSIGN_OR_RETURN(executor->staging_, HostMemory::Map(options.staging_bytes));
  ASSIGN_OR_RETURN(executor->landing_, HostMemory::Map(options.landing_bytes));
  executor->regions_ = {executor->staging_.ref(), executor->landing_.ref()};
  executor->capacity_ = MakeCapacity(options, config);
  const Capacity& capacity = executor->capacity_;
  ASSIGN_OR_RETURN(executor->kv_, PagedPool::OfKv(layout, capacity.kv_blocks, config.num_layers));
  ASSIGN_OR_RETURN(executor->embeddings_,
                   PagedPool::OfEmbeddings(capacity.embedding_slots / kSlotsPerPage, kSlotsPerPage,
                                           config.hidden_size));
  parts.kv = &executor->kv_;
  parts.embeddings = &executor->embeddings_;
  executor->copier_ =
      std::make_unique<PieceCopier>(executor->kv_, executor->embeddings_, executor->regions_);
  executor->runner_ = std::make_unique<StepRunner>(std::move(parts));
  executor->compute_thread_ = std::thread([raw = executor.get()] { raw->Compute(); });
  executor->copy_thread_ = std::thread([raw = executor.get()] { raw->Copy(); });
  return executor;
}

CpuExecutor::~CpuExecutor() {
  {
    base::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (compute_thread_.joinable()) compute_thread_.join();
  copies_.Close();
  if (copy_thread_.joinable()) copy_thread_.join();
}

void CpuExecutor::ProvideInput(scheduler::TaskId task, EncodeInput input) {
  inputs_[task] = std::move(input);
}

void CpuExecutor::DropInput(scheduler::TaskId task) { inputs_.erase(task); }

// ---- computing ----------------------------------------------------------------------------------

void CpuExecutor::Submit(scheduler::StepPlan plan) {
  RunnableStep step{.plan = std::move(plan)};
  for (const scheduler::EncodeRow& encode : step.plan.encodes) {
    const auto found = inputs_.find(encode.task);
    CHECK_TRUE(found != inputs_.end());
    step.inputs.push_back(std::move(found->second));
    inputs_.erase(found);
  }
  base::MutexLock lock(&mutex_);
  const auto index = static_cast<int>(step.plan.lane);
  LaneOfSteps& lane = lanes_[index];
  CHECK_LT(lane.steps.size(), 2u);
  // A lane that had nothing to do does not save up turns.
  if (lane.steps.empty()) lane.used = std::max(lane.used, lanes_[1 - index].used);
  lane.steps.push_back({.step = std::move(step)});
  changed_.NotifyAll();
}

// The step whose turn it is; null when there is nothing left and it is time to stop.
CpuExecutor::Running* CpuExecutor::Next(Lane* lane) {
  base::MutexLock lock(&mutex_);
  while (lanes_[0].steps.empty() && lanes_[1].steps.empty() && !stopping_) changed_.Wait(&mutex_);
  const bool other =
      lanes_[0].steps.empty() || (!lanes_[1].steps.empty() && lanes_[1].used < lanes_[0].used);
  *lane = other ? Lane::kEncode : Lane::kLanguage;
  LaneOfSteps& chosen = lanes_[static_cast<int>(*lane)];
  return chosen.steps.empty() ? nullptr : &chosen.steps.front();
}

// True when the step is over.
bool CpuExecutor::RunPart(Running* running, scheduler::StepResult* result) {
  const scheduler::StepPlan& plan = running->step.plan;
  if (plan.lane == Lane::kEncode) {
    EncodeInput& input = running->step.inputs[running->items_done];
    runner_->Encode(plan.encodes[running->items_done], input);
    input = {};  // of no use any more
    if (++running->items_done < plan.encodes.size()) return false;
    *result = {.id = plan.id, .lane = plan.lane};
  } else {
    *result = runner_->Run(plan);
  }
  return true;
}

void CpuExecutor::Compute() {
  Lane lane = Lane::kLanguage;
  while (Running* const running = Next(&lane)) {
    const base::TimePoint start = clock_.Now();
    scheduler::StepResult result;
    const bool over = RunPart(running, &result);
    const base::Duration took = clock_.Now() - start;
    running->used += took;
    result.seconds = base::ToSeconds(running->used);
    {
      base::MutexLock lock(&mutex_);
      lanes_[static_cast<int>(lane)].used += took;
    }
    if (over) Finish(lane, std::move(result));
  }
}

void CpuExecutor::Finish(Lane lane, scheduler::StepResult result) {
  std::vector<scheduler::ExportSpec> written;
  {
    base::MutexLock lock(&mutex_);
    LaneOfSteps& finished = lanes_[static_cast<int>(lane)];
    finished.done = result.id;
    finished.steps.pop_front();
    for (scheduler::ExportSpec& spec : std::exchange(waiting_exports_, {})) {
      if (IsWritten(spec)) {
        written.push_back(std::move(spec));
      } else {
        waiting_exports_.push_back(std::move(spec));
      }
    }
  }
  for (scheduler::ExportSpec& spec : written) EnqueueExport(std::move(spec));
  events_.on_result(std::move(result));
}

// ---- copying ------------------------------------------------------------------------------------

bool CpuExecutor::IsWritten(const scheduler::ExportSpec& spec) const {
  const bool kv = spec.range.kind == scheduler::TransferKind::kKv;
  return spec.after <= lanes_[static_cast<int>(kv ? Lane::kLanguage : Lane::kEncode)].done;
}

void CpuExecutor::Import(scheduler::ImportSpec spec) {
  Enqueue([this, spec = std::move(spec)] {
    copier_->Import(spec);
    events_.on_import(spec.buffer.id);
  });
}

void CpuExecutor::Export(scheduler::ExportSpec spec) {
  {
    base::MutexLock lock(&mutex_);
    if (!IsWritten(spec)) {
      waiting_exports_.push_back(std::move(spec));
      return;
    }
  }
  EnqueueExport(std::move(spec));
}

void CpuExecutor::EnqueueExport(scheduler::ExportSpec spec) {
  Enqueue([this, spec = std::move(spec)] { events_.on_export(copier_->Export(spec)); });
}

void CpuExecutor::ChecksumLanded(scheduler::PieceBuffer buffer,
                                 std::function<void(uint64_t)> on_checksum) {
  Enqueue([this, buffer, on_checksum = std::move(on_checksum)] {
    on_checksum(copier_->ChecksumLanded(buffer));
  });
}

void CpuExecutor::Enqueue(std::function<void()> copy) {
  CHECK_TRUE(copies_.TryPush(std::move(copy)) || copies_.closed());
}

void CpuExecutor::Copy() {
  while (std::optional<std::function<void()>> copy = copies_.Pop()) (*copy)();
}

}  // namespace triptych::engine
