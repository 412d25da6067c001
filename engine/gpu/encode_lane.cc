#include "engine/gpu/encode_lane.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "engine/step_batch.h"
#include "models/vision/vision_batch.h"

namespace triptych::engine {

using scheduler::StepPlan;

absl::StatusOr<std::unique_ptr<EncodeLane>> EncodeLane::Create(const Config& config,
                                                               const models::VisionTower& tower,
                                                               const GpuPools& pools,
                                                               CompletionQueue* completions,
                                                               OnResult on_result) {
  std::unique_ptr<EncodeLane> lane(
      new EncodeLane(config, tower, pools, completions, std::move(on_result)));
  ASSIGN_OR_RETURN(lane->lane_, DeviceLane::Create(config.device, base::CudaPriority::kLow,
                                                   tower.WorkspaceBytes(config.max_patches)));
  for (Slot& slot : lane->slots_) {
    for (std::optional<base::CudaEvent>* event : {&slot.begin, &slot.end}) {
      ASSIGN_OR_RETURN(base::CudaEvent made, base::CudaEvent::Create(base::CudaTiming::kOn));
      event->emplace(std::move(made));
    }
  }
  // A usual step of pictures finds its memory there: an allocation would wait for the device.
  const models::VisionConfig& vision = tower.config();
  const int64_t units = config.max_patches / (vision.merge_size * vision.merge_size);
  const models::VisionSizes sizes{
      .patches = config.max_patches, .units = units, .windows = units, .frames = units};
  const int64_t frame_bytes = config.max_patches * vision.patch_size * vision.patch_size * 3;
  for (Slot& slot : lane->slots_) {
    RETURN_IF_ERROR(lane->Reserve(&slot, models::VisionBlockBytes(sizes, vision), frame_bytes,
                                  config.max_patches));
  }
  return lane;
}

absl::Status EncodeLane::Reserve(Slot* slot, int64_t block_bytes, int64_t frame_bytes,
                                 int64_t patches) {
  const auto pinned = [](base::PinnedMemory* memory, int64_t bytes) -> absl::Status {
    if (memory->ref().bytes >= bytes) return absl::OkStatus();
    *memory = base::PinnedMemory();
    ASSIGN_OR_RETURN(*memory, base::PinnedMemory::Allocate(bytes));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(pinned(&slot->block, block_bytes));
  RETURN_IF_ERROR(pinned(&slot->frames, frame_bytes));
  for (auto& [memory, bytes] :
       {std::pair{&block_, block_bytes}, std::pair{&frames_, frame_bytes}}) {
    if (memory->ref().bytes >= bytes) continue;
    RETURN_IF_ERROR(lane_->cuda().Synchronize());
    *memory = base::DeviceMemory();
    ASSIGN_OR_RETURN(*memory, base::DeviceMemory::Allocate(config_.device, bytes));
  }
  return lane_->Grow(tower_.WorkspaceBytes(patches));
}

absl::StatusOr<EncodeLane::Packed> EncodeLane::Pack(const StepPlan& plan,
                                                    const std::vector<EncodeInput>& inputs,
                                                    Slot* slot) {
  CHECK_EQ(inputs.size(), plan.encodes.size());
  std::vector<std::vector<int32_t>> slots;
  std::vector<models::VisionItem> items;
  int64_t frame_bytes = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const scheduler::EncodeRow& row = plan.encodes[i];
    CHECK_TRUE(inputs[i].grid == row.grid);
    std::vector<int32_t>& of_item = slots.emplace_back();
    for (int32_t token = 0; token < row.num_tokens; ++token) {
      of_item.push_back(EmbeddingSlot(row.pages, token, pools_.embedding_layout.block_tokens));
    }
    frame_bytes += static_cast<int64_t>(inputs[i].pixels.size());
  }
  for (size_t i = 0; i < inputs.size(); ++i) items.push_back({inputs[i].grid, slots[i]});
  const models::VisionConfig& config = tower_.config();
  ASSIGN_OR_RETURN(const models::VisionSizes sizes, models::SizesOf(items, config));
  const int64_t block_bytes = models::VisionBlockBytes(sizes, config);
  RETURN_IF_ERROR(Reserve(slot, block_bytes, frame_bytes, sizes.patches));
  const models::VisionBatch batch{
      .sizes = sizes,
      .host = models::VisionArraysAt(sizes, config, slot->block.ref().data),
      .device = models::VisionArraysAt(sizes, config, block_.ref().data)};
  models::PackVisionBatch(items, config, tower_.spec(), batch.host);
  std::vector<models::VisionFrames> frames;
  int64_t at = 0;
  for (const EncodeInput& input : inputs) {
    std::copy(input.pixels.begin(), input.pixels.end(),
              static_cast<uint8_t*>(slot->frames.ref().data) + at);
    frames.push_back(
        {input.grid, static_cast<const uint8_t*>(frames_.ref().data) + at, input.num_frames});
    at += static_cast<int64_t>(input.pixels.size());
  }
  RETURN_IF_ERROR(
      lane_->cuda().Copy(block_.ref().Sub(0, block_bytes), slot->block.ref().Sub(0, block_bytes)));
  RETURN_IF_ERROR(lane_->cuda().Copy(frames_.ref().Sub(0, frame_bytes),
                                     slot->frames.ref().Sub(0, frame_bytes)));
  return Packed{.batch = batch, .frames = std::move(frames)};
}

absl::Status EncodeLane::Launch(StepPlan plan, const std::vector<EncodeInput>& inputs) {
  Slot& slot = slots_[plan.id.value() % kSlots];
  ASSIGN_OR_RETURN(const Packed packed, Pack(plan, inputs, &slot));
  RETURN_IF_ERROR(config_.turns->Take(&lane_->cuda(), [&]() -> absl::Status {
    RETURN_IF_ERROR(slot.begin->Record(lane_->cuda().get()));
    RETURN_IF_ERROR(tower_.Encode(packed.frames, packed.batch,
                                  {pools_.embeddings, pools_.embedding_slots()}, lane_->stream()));
    return slot.end->Record(lane_->cuda().get());
  }));
  launched_ = plan.id.value();
  completions_.Push(lane_->cuda().get(), [this, id = plan.id, lane = plan.lane, &slot] {
    scheduler::StepResult result{.id = id, .lane = lane};
    const absl::StatusOr<float> took = slot.end->MillisecondsSince(*slot.begin);
    if (took.ok()) result.seconds = *took / 1e3;
    finished_.store(id.value(), std::memory_order_release);
    on_result_(std::move(result));
  });
  return absl::OkStatus();
}

absl::Status EncodeLane::WaitFor(scheduler::StepId step, CopyLane* copies) {
  if (step.value() <= finished_.load(std::memory_order_acquire)) return absl::OkStatus();
  CHECK_LE(step.value(), launched_);
  return copies->Wait(*slots_[step.value() % kSlots].end);
}

}  // namespace triptych::engine
