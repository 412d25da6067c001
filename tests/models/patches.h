#pragma once

// Between pictures and the patches that reference results are given in.

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/patchify.h"
#include "models/config/model_config.h"
#include "models/processor/image_processor.h"

namespace triptych::testing {

inline kernels::PixelTable PixelTableOf(const models::PreprocessorConfig& preprocessor) {
  float mean[3], deviation[3];
  std::copy(preprocessor.mean.begin(), preprocessor.mean.end(), mean);
  std::copy(preprocessor.std.begin(), preprocessor.std.end(), deviation);
  return kernels::MakePixelTable(mean, deviation);
}

// float32 [grid.patches(), patch_elements], as the published processor has them.
inline std::vector<float> PatchesOf(const models::Frames& frames,
                                    const models::ModelConfig& config) {
  const models::VisionConfig& vision = config.vision;
  const kernels::PixelTable table = PixelTableOf(config.preprocessor);
  std::vector<float> patches(static_cast<size_t>(frames.grid.patches() * vision.patch_elements()));
  const absl::Status status = kernels::Patchify({.frames = frames.pixels.data(),
                                                 .num_frames = frames.count,
                                                 .grid = frames.grid,
                                                 .patch_size = vision.patch_size,
                                                 .temporal_patch_size = vision.temporal_patch_size,
                                                 .merge_size = vision.merge_size,
                                                 .out = patches.data(),
                                                 .table = &table},
                                                {});
  return status.ok() ? patches : std::vector<float>();
}

// The frames that those patches were cut from: every float is that of one 8-bit value.
inline models::Frames FramesOfPatches(const std::vector<float>& patches, const base::Grid& grid,
                                      const models::ModelConfig& config) {
  const models::VisionConfig& vision = config.vision;
  const int side = vision.patch_size, merge = vision.merge_size, width = grid.w * side;
  models::Frames frames{.grid = grid, .count = grid.t * vision.temporal_patch_size};
  frames.pixels.resize(size_t{3} * frames.count * grid.h * side * width);
  const auto pixel_of = [&](float value, int channel) {
    const float scaled =
        value * config.preprocessor.std[channel] + config.preprocessor.mean[channel];
    return static_cast<uint8_t>(std::lround(scaled * 255.0f));
  };
  size_t at = 0;
  for (int64_t patch = 0; patch < grid.patches(); ++patch) {
    const auto in_frame = static_cast<int>(patch % (grid.h * grid.w));
    const int unit = in_frame / (merge * merge), inside = in_frame % (merge * merge);
    const int row = unit / (grid.w / merge) * merge + inside / merge;
    const int column = unit % (grid.w / merge) * merge + inside % merge;
    const auto t = static_cast<int>(patch / (grid.h * grid.w));
    for (int channel = 0; channel < 3; ++channel) {
      for (int f = 0; f < vision.temporal_patch_size; ++f) {
        const int frame = t * vision.temporal_patch_size + f;
        for (int i = 0; i < side * side; ++i) {
          const size_t y = size_t{1} * frame * grid.h * side + row * side + i / side;
          const size_t x = size_t{1} * column * side + i % side;
          frames.pixels[(y * width + x) * 3 + channel] = pixel_of(patches[at++], channel);
        }
      }
    }
  }
  return frames;
}

}  // namespace triptych::testing
