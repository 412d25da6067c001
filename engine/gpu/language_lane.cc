#include "engine/gpu/language_lane.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "engine/row_results.h"
#include "kernels/decode_attention.h"

namespace triptych::engine {

using scheduler::StepPlan;

namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kInt = sizeof(int32_t);
// From about here on a step is bound by arithmetic: it reads each weight once, for so many tokens.
constexpr int64_t kFillingTokens = 256;
// Tokens a row, in the mean, up to which a context is short; what graphs for each are cut for.
constexpr int64_t kShortContext = 4096;
constexpr int64_t kDecodeContexts[] = {1024, 8192};

int64_t MeanContext(const StepPlan& plan) {
  int64_t sum = 0;
  for (const scheduler::PlanRow& row : plan.rows) sum += row.token_begin + 1;
  return plan.rows.empty() ? 0 : sum / static_cast<int64_t>(plan.rows.size());
}

// A step whose rows are all decode steps: what a graph can run.
bool IsDecode(const StepPlan& plan) {
  return std::all_of(plan.rows.begin(), plan.rows.end(), [](const scheduler::PlanRow& row) {
    return row.token_ids.size() == 1 && row.sample.has_value();
  });
}

BatchLimits DecodeLimits(const LanguageLane::Config& config) {
  return {.tokens = config.max_rows,
          .rows = config.max_rows,
          .pages = int64_t{config.max_rows} * config.max_pages,
          .sampled = config.max_rows};
}

BatchLimits LargestLimits(const LanguageLane::Config& config) {
  BatchLimits limits = DecodeLimits(config);
  limits.tokens = std::max<int64_t>(config.max_tokens, config.max_rows);
  return limits;
}

int64_t ResultBytes(int64_t rows) {
  return rows * static_cast<int64_t>(sizeof(kernels::SampleResult) + sizeof(int32_t));
}

}  // namespace

LanguageLane::LanguageLane(const Config& config, const models::Decoder& decoder,
                           const GpuPools& pools, CompletionQueue* completions, OnResult on_result)
    : config_(config),
      decoder_(decoder),
      pools_(pools),
      completions_(*completions),
      on_result_(std::move(on_result)),
      shape_{.vocab_size = decoder.config().vocab_size,
             .block_tokens = pools.kv_layout.block_tokens,
             .embedding_page_slots = config.embedding_page_slots},
      ring_(config.max_rows) {}

int64_t LanguageLane::WorkspaceBytes(const Config& config, const models::Decoder& decoder) {
  return decoder.WorkspaceBytes(std::max<int64_t>(config.max_tokens, config.max_rows),
                                config.max_rows);
}

absl::StatusOr<std::unique_ptr<LanguageLane>> LanguageLane::Create(const Config& config,
                                                                   const models::Decoder& decoder,
                                                                   const GpuPools& pools,
                                                                   CompletionQueue* completions,
                                                                   OnResult on_result) {
  std::unique_ptr<LanguageLane> lane(
      new LanguageLane(config, decoder, pools, completions, std::move(on_result)));
  RETURN_IF_ERROR(lane->Allocate());
  RETURN_IF_ERROR(lane->WarmUp());
  return lane;
}

absl::Status LanguageLane::Allocate() {
  ASSIGN_OR_RETURN(lane_, DeviceLane::Create(config_.device, base::CudaPriority::kHigh,
                                             WorkspaceBytes(config_, decoder_)));
  lane_->UseChoices(config_.choices);
  const auto device = [&](int64_t bytes) {
    return base::DeviceMemory::Allocate(config_.device, bytes);
  };
  const int64_t block_bytes = StepBlockBytes(LargestLimits(config_));
  ASSIGN_OR_RETURN(block_, device(block_bytes));
  ASSIGN_OR_RETURN(logits_, device(config_.max_rows * shape_.vocab_size * kFloat));
  ASSIGN_OR_RETURN(results_, device(ResultBytes(config_.max_rows)));
  ASSIGN_OR_RETURN(sampled_, device(ring_.size() * kInt));
  for (const base::DeviceMemory* memory : {&block_, &results_, &sampled_}) {
    RETURN_IF_ERROR(base::CudaStatus(
        cudaMemset(memory->ref().data, 0, static_cast<size_t>(memory->ref().bytes)), "clear"));
  }
  for (StepSlot& slot : slots_) {
    ASSIGN_OR_RETURN(slot.block, base::PinnedMemory::Allocate(block_bytes));
    ASSIGN_OR_RETURN(slot.results, base::PinnedMemory::Allocate(ResultBytes(config_.max_rows)));
    for (std::optional<base::CudaEvent>* event : {&slot.begin, &slot.end}) {
      ASSIGN_OR_RETURN(base::CudaEvent made, base::CudaEvent::Create(base::CudaTiming::kOn));
      event->emplace(std::move(made));
    }
  }
  return absl::OkStatus();
}

models::DecoderBatch LanguageLane::BatchOf(const StepBatch& batch, const StepArrays& device,
                                           const kernels::AttentionPlan& attention) const {
  auto* const results = static_cast<kernels::SampleResult*>(results_.ref().data);
  return {.tokens = batch.tokens,
          .inputs = device.inputs,
          .positions = device.positions,
          .slots = device.slots,
          .attention = &attention,
          .logits_rows = batch.sampled,
          .logits_tokens = device.logits_tokens,
          .sampled = static_cast<const int32_t*>(sampled_.ref().data),
          .sampled_size = ring_.size(),
          .row_of_token = device.row_of_token,
          .errors = reinterpret_cast<int32_t*>(results + config_.max_rows)};
}

absl::StatusOr<base::MemoryRef> LanguageLane::BlockFor(int64_t bytes, StepSlot* slot) {
  if (bytes <= block_.ref().bytes) return block_.ref();
  if (slot->block.ref().bytes < bytes) {
    ASSIGN_OR_RETURN(slot->block, base::PinnedMemory::Allocate(bytes + bytes / 4));
  }
  if (large_block_.ref().bytes < bytes) {
    RETURN_IF_ERROR(lane_->cuda().Synchronize());
    ASSIGN_OR_RETURN(large_block_, base::DeviceMemory::Allocate(config_.device, bytes + bytes / 4));
  }
  return large_block_.ref();
}

absl::StatusOr<LanguageLane::Packed> LanguageLane::Pack(const StepPlan& plan,
                                                        const BatchLimits& limits, int32_t bucket,
                                                        StepSlot* slot) {
  ASSIGN_OR_RETURN(const base::MemoryRef block, BlockFor(StepBlockBytes(limits), slot));
  auto* const host_base = static_cast<uint8_t*>(slot->block.ref().data);
  Packed packed{.host = StepArraysAt(limits, host_base),
                .device = StepArraysAt(limits, block.data)};
  BatchShape shape = shape_;
  shape.padded_rows = bucket;
  packed.batch = PackStep(plan, shape, ring_, packed.host);
  // Up to the last page in use, and what stands behind the room for pages.
  const auto copy = [&](const void* begin, const void* end) {
    const auto offset = static_cast<const uint8_t*>(begin) - host_base;
    const auto size = static_cast<const uint8_t*>(end) - static_cast<const uint8_t*>(begin);
    return lane_->cuda().Copy(block.Sub(offset, size), slot->block.ref().Sub(offset, size));
  };
  RETURN_IF_ERROR(copy(host_base, packed.host.pages + packed.batch.pages));
  RETURN_IF_ERROR(copy(packed.host.logits_tokens, packed.host.counts + limits.counts));
  return packed;
}

absl::Status LanguageLane::RunEager(const Packed& packed, StepSlot* slot) {
  CHECK_LE(packed.batch.tokens, LargestLimits(config_).tokens);
  RETURN_IF_ERROR(slot->attention.Make(AttentionRowsOf(packed.batch, packed.host, packed.device),
                                       pools_.kv_layout, pools_.kv_blocks,
                                       decoder_.config().num_attention_heads, lane_->stream()));
  return decoder_.Forward(BatchOf(packed.batch, packed.device, slot->attention), pools_.kv(),
                          {pools_.embeddings, pools_.embedding_slots()},
                          static_cast<float*>(logits_.ref().data), lane_->stream());
}

absl::Status LanguageLane::Sample(const Packed& packed, int32_t ring_begin, StepSlot* slot) {
  auto* const results = static_cast<kernels::SampleResult*>(results_.ref().data);
  if (packed.batch.sampled > 0) {
    RETURN_IF_ERROR(
        kernels::Sample({.logits = logits_.ref().data,
                         .rows = packed.batch.sampled,
                         .vocab = shape_.vocab_size,
                         .params = packed.device.sampling,
                         .biases = packed.device.biases,
                         .counts = packed.device.counts,
                         .sampled = static_cast<const int32_t*>(sampled_.ref().data),
                         .sampled_size = ring_.size(),
                         .results = results,
                         .ids = static_cast<int32_t*>(sampled_.ref().data) + ring_begin},
                        lane_->stream()));
  }
  return lane_->cuda().Copy(slot->results.ref(), results_.ref());
}

scheduler::StepResult LanguageLane::ResultOf(const StepPlan& plan, const StepSlot& slot) const {
  scheduler::StepResult result{.id = plan.id, .lane = plan.lane};
  const auto* errors = reinterpret_cast<const int32_t*>(slot.drawn() + config_.max_rows);
  result.rows = RowResultsOf(plan, {slot.drawn(), static_cast<size_t>(config_.max_rows)},
                             {errors, static_cast<size_t>(config_.max_rows)});
  const absl::StatusOr<float> took = slot.end->MillisecondsSince(*slot.begin);
  if (took.ok()) result.seconds = *took / 1e3;
  return result;
}

absl::Status LanguageLane::Run(const Packed& packed, int32_t ring_begin, StepSlot* slot,
                               Graphs* replay) {
  RETURN_IF_ERROR(slot->begin->Record(lane_->cuda().get()));
  RETURN_IF_ERROR(replay != nullptr ? RunDecode(packed, replay) : RunEager(packed, slot));
  RETURN_IF_ERROR(Sample(packed, ring_begin, slot));
  return slot->end->Record(lane_->cuda().get());
}

absl::Status LanguageLane::Launch(StepPlan plan) {
  CHECK_LE(plan.rows.size(), static_cast<size_t>(config_.max_rows));
  StepSlot& slot = slots_[plan.id.value() % kSlots];
  Graphs& graphs = graphs_[plan.id.value() % 2][MeanContext(plan) <= kShortContext ? 0 : 1];
  BatchLimits limits = DecodeLimits(config_);
  limits.biases = LimitsOf(plan).biases;
  limits.counts = LimitsOf(plan).counts;
  const bool replay = graphs.graphs != nullptr && !plan.rows.empty() && IsDecode(plan) &&
                      StepBlockBytes(limits) <= block_.ref().bytes;
  const int32_t bucket =
      replay ? graphs.graphs->BucketFor(static_cast<int32_t>(plan.rows.size())) : 0;
  if (bucket == 0) limits = LimitsOf(plan);
  ASSIGN_OR_RETURN(const Packed packed, Pack(plan, limits, bucket, &slot));
  auto* const results = static_cast<kernels::SampleResult*>(results_.ref().data);
  RETURN_IF_ERROR(base::CudaStatus(
      cudaMemsetAsync(results + config_.max_rows, 0, static_cast<size_t>(config_.max_rows * kInt),
                      static_cast<cudaStream_t>(lane_->cuda().get())),
      "clear the rows' errors"));
  const int32_t ring_begin = ring_.Note(plan);
  const auto run = [&] { return Run(packed, ring_begin, &slot, bucket > 0 ? &graphs : nullptr); };
  RETURN_IF_ERROR(packed.batch.tokens >= kFillingTokens ? config_.turns->Take(&lane_->cuda(), run)
                                                        : run());
  launched_ = plan.id.value();
  completions_.Push(lane_->cuda().get(), [this, plan = std::move(plan), &slot] {
    scheduler::StepResult result = ResultOf(plan, slot);
    finished_.store(plan.id.value(), std::memory_order_release);
    on_result_(std::move(result));
  });
  return absl::OkStatus();
}

absl::Status LanguageLane::WaitFor(scheduler::StepId step, CopyLane* copies) {
  if (step.value() <= finished_.load(std::memory_order_acquire)) return absl::OkStatus();
  CHECK_LE(step.value(), launched_);
  return copies->Wait(*slots_[step.value() % kSlots].end);
}

absl::Status LanguageLane::RunDecode(const Packed& packed, Graphs* graphs) {
  kernels::AttentionRows rows = AttentionRowsOf(packed.batch, packed.host, packed.device);
  rows.decode_context = graphs->decode_context;
  RETURN_IF_ERROR(graphs->plans.at(packed.batch.rows)
                      .Make(rows, pools_.kv_layout, pools_.kv_blocks,
                            decoder_.config().num_attention_heads, lane_->stream()));
  return graphs->graphs->Launch(packed.batch.rows, lane_->cuda().get());
}

absl::Status LanguageLane::WarmUp() {
  // The largest step: one prompt over block 0, again and again, that stores nothing.
  StepPlan plan{.id = scheduler::StepId(0)};
  scheduler::PlanRow row;
  const auto tokens = static_cast<int32_t>(
      std::min<int64_t>(config_.max_tokens, config_.max_pages * shape_.block_tokens));
  row.token_ids.assign(static_cast<size_t>(tokens), 0);
  row.positions.resize(static_cast<size_t>(tokens));
  row.pages.assign(static_cast<size_t>((tokens + shape_.block_tokens - 1) / shape_.block_tokens),
                   0);
  row.sample = scheduler::SampleSpec{};
  plan.rows.push_back(std::move(row));
  ASSIGN_OR_RETURN(const Packed packed, Pack(plan, LimitsOf(plan), 0, &slots_[0]));
  std::fill_n(packed.host.slots, packed.batch.tokens, -1);
  RETURN_IF_ERROR(lane_->cuda().Copy(block_.ref(), slots_[0].block.ref()));
  RETURN_IF_ERROR(RunEager(packed, &slots_[0]));
  RETURN_IF_ERROR(Sample(packed, 0, &slots_[0]));
  RETURN_IF_ERROR(lane_->cuda().Synchronize());
  CHECK_LE(lane_->workspace().high_water(), WorkspaceBytes(config_, decoder_));
  // Where chunks' attention has to serve decode rows, its launches depend on their lengths.
  const int heads = decoder_.config().num_attention_heads;
  if (!kernels::DecodeAttentionServes(pools_.kv_layout, heads)) return absl::OkStatus();
  for (auto& parity : graphs_) {
    for (int i = 0; i < kContexts; ++i) {
      parity[i].decode_context = kDecodeContexts[i];
      RETURN_IF_ERROR(CaptureGraphs(&parity[i]));
    }
  }
  return lane_->cuda().Synchronize();
}

absl::Status LanguageLane::EnqueueDecode(int32_t rows, Graphs* graphs) {
  kernels::AttentionPlan& attention = graphs->plans[rows];
  BatchShape shape = shape_;
  shape.padded_rows = rows;
  const BatchLimits limits = DecodeLimits(config_);
  const StepArrays host = StepArraysAt(limits, slots_[0].block.ref().data);
  const StepArrays device = StepArraysAt(limits, block_.ref().data);
  const StepBatch batch = PackStep(StepPlan{}, shape, ring_, host);
  if (attention.rows().rows != rows) {  // outside of the capture: it copies
    kernels::AttentionRows plan = AttentionRowsOf(batch, host, device);
    plan.decode_context = graphs->decode_context;
    return attention.Make(plan, pools_.kv_layout, pools_.kv_blocks,
                          decoder_.config().num_attention_heads, lane_->stream());
  }
  return decoder_.Forward(BatchOf(batch, device, attention), pools_.kv(),
                          {pools_.embeddings, pools_.embedding_slots()},
                          static_cast<float*>(logits_.ref().data), lane_->stream());
}

absl::Status LanguageLane::CaptureGraphs(Graphs* graphs) {
  const auto enqueue = [&](int32_t rows) { return EnqueueDecode(rows, graphs); };
  for (int32_t bucket : DecodeGraphs::Buckets(config_.max_rows)) {
    // The plan; then once outside a capture, since libraries set themselves up at their first call.
    RETURN_IF_ERROR(enqueue(bucket));
    RETURN_IF_ERROR(lane_->cuda().Synchronize());
    RETURN_IF_ERROR(enqueue(bucket));
    RETURN_IF_ERROR(lane_->cuda().Synchronize());
  }
  ASSIGN_OR_RETURN(graphs->graphs,
                   DecodeGraphs::Capture(config_.max_rows, lane_->cuda().get(), enqueue));
  return absl::OkStatus();
}

}  // namespace triptych::engine
