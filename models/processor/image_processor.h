#pragma once

// Pictures to frames of a grid's size, as Qwen2.5-VL's published processor does: smart resize,
// bicubic with antialias on 8-bit values. What makes patches of them is kernels/patchify.h.

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/grid.h"
#include "base/image.h"
#include "models/config/model_config.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::models {

// An item at its grid's size, ready to be cut into patches (kernels/patchify.h): 8-bit RGB
// [count, grid.h * patch_size, grid.w * patch_size, 3]. A picture is one frame; the last frame of
// an odd number stands for the one that lacks.
struct Frames {
  base::Grid grid;
  int count = 0;
  std::vector<uint8_t> pixels;
};

// Immutable, so any thread may use it.
class ImageProcessor {
 public:
  explicit ImageProcessor(const ModelConfig& config);

  // Grid of a picture of `width` x `height` pixels after smart resize. INVALID_ARGUMENT when a side
  // is not positive or the ratio of the sides exceeds 200.
  absl::StatusOr<scheduler::Grid> GridOf(int width, int height) const;
  // Grid of a video of `num_frames` frames, all of one size. INVALID_ARGUMENT also for no frames.
  absl::StatusOr<scheduler::Grid> VideoGridOf(int width, int height, int num_frames) const;

  // One picture, or the frames of one video, resized. Errors as VideoGridOf(); INVALID_ARGUMENT
  // also when frames differ in size.
  absl::StatusOr<Frames> FramesOf(absl::Span<const base::Image> images) const;
  // Adds one frame to `frames`, whose grid is that of VideoGridOf; resized where it has not the
  // grid's size. So whoever decodes a video holds one decoded frame at a time.
  void Append(const base::Image& image, Frames* frames) const;

  // Pixels of a frame that has the grid's size.
  int WidthOf(const scheduler::Grid& grid) const { return grid.w * vision_.patch_size; }
  int HeightOf(const scheduler::Grid& grid) const { return grid.h * vision_.patch_size; }

  // Seconds between two grid steps of a video sampled at `fps` frames a second (above 0).
  double SecondsPerGrid(double fps) const { return vision_.temporal_patch_size / fps; }

 private:
  VisionConfig vision_;
  PreprocessorConfig preprocessor_;
};

}  // namespace triptych::models
