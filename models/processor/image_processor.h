#pragma once

// Pictures to patches, as Qwen2.5-VL's published processor does: smart resize, bicubic with
// antialias on 8-bit values, normalisation, patches in merge order.

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/image.h"
#include "models/config/model_config.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::models {

// Patches of one item: float32 [grid.patches(), patch_elements], row-major. A row is (channel,
// time, height, width) of one patch; the patches of one merge unit are adjacent, units in reading
// order.
struct Patches {
  scheduler::Grid grid;
  std::vector<float> values;
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

  // One picture; it is repeated to temporal_patch_size frames. Errors as GridOf().
  absl::StatusOr<Patches> Patchify(const base::Image& image) const;
  // One video; the last frame is repeated where the count is no multiple of temporal_patch_size.
  // INVALID_ARGUMENT also when frames differ in size.
  absl::StatusOr<Patches> PatchifyVideo(absl::Span<const base::Image> frames) const;

  // Seconds between two grid steps of a video sampled at `fps` frames a second (above 0).
  double SecondsPerGrid(double fps) const { return vision_.temporal_patch_size / fps; }

 private:
  VisionConfig vision_;
  PreprocessorConfig preprocessor_;
};

}  // namespace triptych::models
