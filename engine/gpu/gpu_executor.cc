#include "engine/gpu/gpu_executor.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/bounded_queue.h"
#include "base/check.h"
#include "base/cuda.h"
#include "base/status.h"
#include "engine/gpu/completion_queue.h"
#include "engine/gpu/copy_lane.h"
#include "engine/gpu/device_weights.h"
#include "engine/gpu/encode_lane.h"
#include "engine/gpu/gpu_pools.h"
#include "engine/gpu/landing_checksum.h"
#include "engine/gpu/language_lane.h"
#include "kernels/decode_choices.h"
#include "models/decoder/decoder.h"
#include "models/family/model_spec.h"
#include "models/vision/vision_tower.h"

namespace triptych::engine {
namespace {

using scheduler::Lane;
using scheduler::Stage;

constexpr int32_t kSlotsPerPage = 64;
constexpr int64_t kElement = 2;  // bfloat16
// Step arrays, results, captured graphs, handles of libraries, kernels' code: measured below this.
constexpr int64_t kFixedBytes = int64_t{2} << 30;

// What a launch thread is given, in order.
struct LanguageStep {
  scheduler::StepPlan plan;
};
struct EncodeStep {
  scheduler::StepPlan plan;
  std::vector<EncodeInput> inputs;
};
struct ExportPiece {
  scheduler::ExportSpec spec;
};
struct ImportPiece {
  scheduler::ImportSpec spec;
};
struct ChecksumPiece {
  scheduler::PieceBuffer buffer;
  std::function<void(uint64_t)> on_checksum;
};
using Work = std::variant<LanguageStep, EncodeStep, ExportPiece, ImportPiece, ChecksumPiece>;

class GpuExecutor final : public Executor {
 public:
  GpuExecutor(const GpuOptions& options, ExecutorEvents events,
              std::function<void(const absl::Status&)> on_failure)
      : options_(options), events_(std::move(events)), on_failure_(std::move(on_failure)) {}
  ~GpuExecutor() override;

  absl::Status Start(const models::ModelConfig& config, const models::WeightSource& weights);

  const Capacity& capacity() const override { return capacity_; }
  const TransferRegions& transfer_regions() const override { return regions_; }
  void ProvideInput(scheduler::TaskId task, EncodeInput input) override {
    inputs_[task] = std::move(input);
  }
  void DropInput(scheduler::TaskId task) override { inputs_.erase(task); }
  void Submit(scheduler::StepPlan plan) override;
  void Import(scheduler::ImportSpec spec) override {
    Push(&copy_work_, ImportPiece{std::move(spec)});
  }
  void Export(scheduler::ExportSpec spec) override;
  void ChecksumLanded(scheduler::PieceBuffer buffer,
                      std::function<void(uint64_t)> on_checksum) override {
    Push(&checksum_work_, ChecksumPiece{buffer, std::move(on_checksum)});
  }

 private:
  using Queue = base::BoundedQueue<Work>;

  bool computes_language() const {
    return options_.roles.has(Stage::kPrefill) || options_.roles.has(Stage::kDecode);
  }
  bool encodes() const { return options_.roles.has(Stage::kEncode); }
  absl::Status Load(const models::ModelConfig& config, const models::WeightSource& weights);
  absl::Status AllocatePools(const models::ModelConfig& config,
                             const base::CudaDeviceInfo& at_start);
  absl::Status AllocateRegions();
  absl::Status MakeLanes(const models::ModelConfig& config);
  LanguageLane::Config LanguageConfig(const models::ModelConfig& config);
  void Push(Queue* queue, Work work);
  void Run(Queue* queue);
  absl::Status Do(LanguageStep& work) { return language_->Launch(std::move(work.plan)); }
  absl::Status Do(EncodeStep& work) { return encode_->Launch(std::move(work.plan), work.inputs); }
  absl::Status Do(ExportPiece& work);
  absl::Status Do(ImportPiece& work);
  absl::Status Do(ChecksumPiece& work);

  // Pieces under way, and as many receives and checksums as the landing region has buffers.
  static constexpr size_t kMaxWork = 1 << 16;
  static constexpr int kMaxPieces = 64;

  const GpuOptions options_;
  const ExecutorEvents events_;
  const std::function<void(const absl::Status&)> on_failure_;
  Capacity capacity_;
  base::PinnedMemory host_staging_, host_landing_;
  base::DeviceMemory device_staging_, device_landing_;
  TransferRegions regions_;
  std::unique_ptr<kernels::GemmChoices> choices_;
  std::unique_ptr<DeviceTurns> turns_;
  std::unique_ptr<DeviceWeights> weights_;
  std::unique_ptr<models::VisionTower> tower_;
  std::unique_ptr<models::Decoder> decoder_;
  GpuPools pools_;
  absl::flat_hash_map<scheduler::TaskId, EncodeInput> inputs_;  // owner thread only
  Queue language_work_{kMaxWork}, encode_work_{kMaxWork}, copy_work_{kMaxWork},
      checksum_work_{kMaxWork};
  // Destroyed first, so that what a completion calls is still there.
  std::unique_ptr<LanguageLane> language_;
  std::unique_ptr<EncodeLane> encode_;
  std::unique_ptr<CopyLane> kv_exports_, embedding_exports_, imports_;
  std::unique_ptr<LandingChecksum> landing_checksum_;
  std::unique_ptr<CompletionQueue> steps_done_, encodes_done_, copies_done_;
  std::vector<std::thread> threads_;
};

GpuExecutor::~GpuExecutor() {
  for (Queue* queue : {&language_work_, &encode_work_, &copy_work_, &checksum_work_})
    queue->Close();
  for (std::thread& thread : threads_) thread.join();
  for (auto* queue : {&steps_done_, &encodes_done_, &copies_done_}) queue->reset();
}

absl::Status GpuExecutor::Load(const models::ModelConfig& config,
                               const models::WeightSource& weights) {
  ASSIGN_OR_RETURN(weights_, DeviceWeights::Create(options_.device, options_.threads));
  const models::ModelSpec spec = models::SpecOf(config, weights);
  if (encodes()) {
    ASSIGN_OR_RETURN(tower_,
                     models::VisionTower::Load(weights, config, spec.tower, weights_.get()));
  }
  if (computes_language()) {
    ASSIGN_OR_RETURN(decoder_,
                     models::Decoder::Load(weights, config, spec.decoder, weights_.get()));
  }
  return weights_->Finish();
}

LanguageLane::Config GpuExecutor::LanguageConfig(const models::ModelConfig& config) {
  return {.device = options_.device,
          .max_rows = options_.max_rows,
          .max_tokens = options_.max_step_tokens,
          .max_pages = (config.max_position_embeddings + options_.kv_block_tokens - 1) /
                       options_.kv_block_tokens,
          .embedding_page_slots = kSlotsPerPage,
          .choices = choices_.get(),
          .turns = turns_.get()};
}

absl::Status GpuExecutor::AllocatePools(const models::ModelConfig& config,
                                        const base::CudaDeviceInfo& at_start) {
  const int64_t token_bytes =
      int64_t{2} * config.num_layers * config.num_kv_heads * config.head_dim * kElement;
  const bool on_device = options_.transfer_memory == TransferMemory::kDevice;
  ModelSizes sizes{
      .weights = weights_->bytes(),
      .kv_per_token = computes_language() ? token_bytes : 0,
      .embedding_per_token = config.hidden_size * kElement,
      .fixed = kFixedBytes + (on_device ? options_.staging_bytes + options_.landing_bytes
                                        : 3 * options_.max_piece_bytes)};
  if (decoder_ != nullptr) {
    sizes.scratch += LanguageLane::WorkspaceBytes(LanguageConfig(config), *decoder_) +
                     int64_t{options_.max_rows} * config.vocab_size * int64_t{sizeof(float)};
  }
  if (tower_ != nullptr) sizes.scratch += tower_->WorkspaceBytes(options_.max_patches);
  const int32_t pages = (options_.embedding_slots + kSlotsPerPage - 1) / kSlotsPerPage;
  ASSIGN_OR_RETURN(const MemoryPlan plan,
                   PlanMemory(sizes, {.total = at_start.total_bytes, .free = at_start.free_bytes},
                              {.utilization = options_.memory_utilization,
                               .kv_block_tokens = options_.kv_block_tokens,
                               .kv_blocks = options_.kv_blocks,
                               .embedding_slots = int64_t{pages} * kSlotsPerPage}));
  pools_.kv_layout = {.block_tokens = options_.kv_block_tokens,
                      .kv_heads = config.num_kv_heads,
                      .head_dim = config.head_dim,
                      .dtype = base::DType::kBFloat16};
  pools_.kv_blocks = plan.kv_blocks;
  ASSIGN_OR_RETURN(pools_.kv_memory, base::DeviceMemory::Allocate(options_.device, plan.kv));
  const int64_t layer_bytes = pools_.kv_layout.block_bytes() * pools_.kv_blocks;
  for (int i = 0; i < config.num_layers && computes_language(); ++i) {
    pools_.kv_layers.push_back(static_cast<uint8_t*>(pools_.kv_memory.ref().data) +
                               i * layer_bytes);
  }
  pools_.embedding_layout = {.block_tokens = kSlotsPerPage,
                             .kv_heads = 1,
                             .head_dim = config.hidden_size,
                             .dtype = base::DType::kBFloat16};
  pools_.embedding_pages = pages;
  ASSIGN_OR_RETURN(pools_.embedding_memory,
                   base::DeviceMemory::Allocate(options_.device, plan.embeddings));
  pools_.embeddings = pools_.embedding_memory.ref().data;
  for (const base::DeviceMemory* memory : {&pools_.kv_memory, &pools_.embedding_memory}) {
    if (memory->ref().bytes == 0) continue;
    RETURN_IF_ERROR(base::CudaStatus(
        cudaMemset(memory->ref().data, 0, static_cast<size_t>(memory->ref().bytes)),
        "clear a pool"));
  }
  capacity_ = {.compute_format = "bfloat16-1",
               .kv_block_tokens = options_.kv_block_tokens,
               .kv_blocks = plan.kv_blocks,
               .embedding_slots = pages * kSlotsPerPage,
               .embedding_page_slots = kSlotsPerPage,
               .kv_bytes_per_token = token_bytes,
               .embedding_bytes_per_token = config.hidden_size * kElement,
               .num_layers = config.num_layers,
               .max_position = config.max_position_embeddings};
  return absl::OkStatus();
}

absl::Status GpuExecutor::AllocateRegions() {
  const int64_t staging = options_.staging_bytes, landing = options_.landing_bytes;
  if (options_.transfer_memory == TransferMemory::kDevice) {
    ASSIGN_OR_RETURN(device_staging_, base::DeviceMemory::Allocate(options_.device, staging));
    ASSIGN_OR_RETURN(device_landing_, base::DeviceMemory::Allocate(options_.device, landing));
    regions_ = {device_staging_.ref(), device_landing_.ref()};
  } else {
    ASSIGN_OR_RETURN(host_staging_, base::PinnedMemory::Allocate(staging));
    ASSIGN_OR_RETURN(host_landing_, base::PinnedMemory::Allocate(landing));
    regions_ = {host_staging_.ref(), host_landing_.ref()};
  }
  ASSIGN_OR_RETURN(landing_checksum_, LandingChecksum::Create(options_.device));
  return absl::OkStatus();
}

absl::Status GpuExecutor::MakeLanes(const models::ModelConfig& config) {
  for (auto* queue : {&steps_done_, &encodes_done_}) {
    ASSIGN_OR_RETURN(*queue, CompletionQueue::Create(options_.device, 4, on_failure_));
  }
  ASSIGN_OR_RETURN(copies_done_,
                   CompletionQueue::Create(options_.device, 3 * kMaxPieces, on_failure_));
  const LanguageLane::Config language = LanguageConfig(config);
  if (decoder_ != nullptr) {
    ASSIGN_OR_RETURN(language_, LanguageLane::Create(language, *decoder_, pools_, steps_done_.get(),
                                                     events_.on_result));
  }
  if (tower_ != nullptr) {
    ASSIGN_OR_RETURN(
        encode_,
        EncodeLane::Create(
            {.device = options_.device, .max_patches = options_.max_patches, .turns = turns_.get()},
            *tower_, pools_, encodes_done_.get(), events_.on_result));
  }
  const CopyLane::Config copies{
      .device = options_.device,
      .max_piece_bytes = options_.max_piece_bytes,
      .max_pages = std::max<int64_t>(language.max_pages, pools_.embedding_pages),
      .max_in_flight = kMaxPieces};
  for (auto* lane : {&kv_exports_, &embedding_exports_, &imports_}) {
    ASSIGN_OR_RETURN(*lane, CopyLane::Create(copies, pools_, regions_, copies_done_.get()));
  }
  return absl::OkStatus();
}

absl::Status GpuExecutor::Start(const models::ModelConfig& config,
                                const models::WeightSource& weights) {
  ASSIGN_OR_RETURN(const base::CudaDeviceInfo info, base::DescribeCudaDevice(options_.device));
  if (!options_.decode_choices.empty()) {
    ASSIGN_OR_RETURN(kernels::GemmChoices choices,
                     kernels::ParseDecodeChoices(options_.decode_choices));
    choices_ = std::make_unique<kernels::GemmChoices>(std::move(choices));
  }
  RETURN_IF_ERROR(base::UseCudaDevice(options_.device));
  ASSIGN_OR_RETURN(turns_, DeviceTurns::Create());
  RETURN_IF_ERROR(Load(config, weights));
  RETURN_IF_ERROR(AllocatePools(config, info));
  RETURN_IF_ERROR(AllocateRegions());
  RETURN_IF_ERROR(MakeLanes(config));
  for (Queue* queue : {&language_work_, &encode_work_, &copy_work_, &checksum_work_}) {
    threads_.emplace_back([this, queue] { Run(queue); });
  }
  return absl::OkStatus();
}

void GpuExecutor::Push(Queue* queue, Work work) {
  CHECK_TRUE(queue->TryPush(std::move(work)) || queue->closed());
}

void GpuExecutor::Submit(scheduler::StepPlan plan) {
  if (plan.lane == Lane::kLanguage) return Push(&language_work_, LanguageStep{std::move(plan)});
  EncodeStep step{.plan = std::move(plan), .inputs = {}};
  for (const scheduler::EncodeRow& row : step.plan.encodes) {
    const auto found = inputs_.find(row.task);
    CHECK_TRUE(found != inputs_.end());
    step.inputs.push_back(std::move(found->second));
    inputs_.erase(found);
  }
  Push(&encode_work_, std::move(step));
}

// Behind the step that writes it, on that step's launch thread.
void GpuExecutor::Export(scheduler::ExportSpec spec) {
  const bool kv = spec.range.kind == scheduler::TransferKind::kKv;
  Push(kv ? &language_work_ : &encode_work_, ExportPiece{std::move(spec)});
}

void GpuExecutor::Run(Queue* queue) {
  absl::Status status = base::UseCudaDevice(options_.device);
  while (std::optional<Work> work = queue->Pop()) {
    if (status.ok()) status = std::visit([this](auto& item) { return Do(item); }, *work);
    if (!status.ok()) {
      on_failure_(status);
      return;
    }
  }
}

absl::Status GpuExecutor::Do(ExportPiece& work) {
  const scheduler::ExportSpec& spec = work.spec;
  const bool kv = spec.range.kind == scheduler::TransferKind::kKv;
  CopyLane* const lane = kv ? kv_exports_.get() : embedding_exports_.get();
  RETURN_IF_ERROR(kv ? language_->WaitFor(spec.after, lane) : encode_->WaitFor(spec.after, lane));
  return lane->Export(spec, [this, buffer = spec.buffer.id](uint64_t checksum) {
    events_.on_export({.buffer = buffer, .checksum = checksum});
  });
}

absl::Status GpuExecutor::Do(ImportPiece& work) {
  return imports_->Import(work.spec,
                          [this, buffer = work.spec.buffer.id] { events_.on_import(buffer); });
}

absl::Status GpuExecutor::Do(ChecksumPiece& work) {
  ASSIGN_OR_RETURN(const uint64_t checksum, landing_checksum_->Of(regions_.Landing(work.buffer)));
  work.on_checksum(checksum);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Executor>> MakeGpuExecutor(
    const GpuOptions& options, const models::ModelConfig& config,
    const models::WeightSource& weights, ExecutorEvents events,
    std::function<void(const absl::Status&)> on_failure) {
  auto executor = std::make_unique<GpuExecutor>(options, std::move(events), std::move(on_failure));
  RETURN_IF_ERROR(executor->Start(config, weights));
  return executor;
}

}  // namespace triptych::engine
