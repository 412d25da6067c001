#pragma once

// A vision tower on the CPU with memory of its own, for tests and measurements.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/check.h"
#include "engine/memory/host_memory.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"
#include "models/processor/image_processor.h"
#include "models/vision/vision_tower.h"
#include "models/weights/checkpoint.h"

namespace triptych::testing {

class TowerBench {
 public:
  TowerBench(const std::string& dir, int threads) : pool_(threads), memory_(&pool_) {
    config_ = *models::LoadModelConfig(dir);
    const auto weights = *models::Checkpoint::Open(dir);
    tower_ =
        *models::VisionTower::Load(*weights, config_, SpecOf(config_, *weights).tower, &memory_);
  }

  // The visual tokens of all items, one after another, in one call.
  std::vector<float> Encode(absl::Span<const models::Frames> items) {
    const int unit = config_.vision.merge_size * config_.vision.merge_size;
    int64_t tokens = 0;
    for (const models::Frames& item : items) tokens += item.grid.patches() / unit;
    std::vector<int32_t> slots(tokens);
    std::iota(slots.begin(), slots.end(), 0);
    std::vector<models::VisionItem> placed;
    std::vector<models::VisionFrames> frames;
    for (const models::Frames& item : items) {
      const int64_t first = placed.empty() ? 0 : placed.back().slots.end() - slots.data();
      placed.push_back(
          {item.grid, absl::MakeConstSpan(slots).subspan(first, item.grid.patches() / unit)});
      frames.push_back({item.grid, item.pixels.data(), item.count});
    }
    const models::VisionSizes sizes = *models::SizesOf(placed, config_.vision);
    block_.resize(models::VisionBlockBytes(sizes, config_.vision));
    const auto arrays = models::VisionArraysAt(sizes, config_.vision, block_.data());
    models::PackVisionBatch(placed, config_.vision, tower_->spec(), arrays);
    std::vector<float> out(tokens * config_.vision.out_hidden_size);
    const int64_t bytes = tower_->WorkspaceBytes(sizes.patches);
    if (scratch_.ref().bytes < bytes) scratch_ = *engine::HostMemory::Map(bytes);
    kernels::Workspace workspace(scratch_.ref());
    CHECK_OK(tower_->Encode(frames, {sizes, arrays, arrays}, {out.data(), tokens},
                            {.pool = &pool_, .workspace = &workspace}));
    CHECK_LE(workspace.high_water(), bytes);
    return out;
  }

  const models::ModelConfig& config() const { return config_; }

 private:
  kernels::ThreadPool pool_;
  models::HostWeightMemory memory_;
  models::ModelConfig config_;
  std::unique_ptr<models::VisionTower> tower_;
  std::vector<std::byte> block_;
  engine::HostMemory scratch_;
};

}  // namespace triptych::testing
