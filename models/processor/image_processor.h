#pragma once

// Pictures to patches, as Qwen2.5-VL's published processor does: smart resize, bicubic with
// antialias on 8-bit values, normalisation, patches in merge order.

#include <memory>
#include <utility>
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

  // Pixels of a frame that has the grid's size.
  int WidthOf(const scheduler::Grid& grid) const { return grid.w * vision_.patch_size; }
  int HeightOf(const scheduler::Grid& grid) const { return grid.h * vision_.patch_size; }

  // Takes the frames of one item one after the other, and keeps none of them: beside the patches
  // one frame and its resized copy are in memory.
  class Frames {
   public:
    // `grid` is that of VideoGridOf for `num_frames` frames. Borrows the processor.
    Frames(const ImageProcessor& processor, const scheduler::Grid& grid, int num_frames);
    ~Frames();
    // The next, at most `num_frames`; resized where it has not the grid's size.
    void Add(const base::Image& frame);
    // After the last.
    Patches Take() { return std::move(patches_); }

   private:
    class Writer;
    const ImageProcessor& processor_;
    const int num_frames_;
    int added_ = 0;
    Patches patches_;
    std::unique_ptr<Writer> writer_;
  };

  // Seconds between two grid steps of a video sampled at `fps` frames a second (above 0).
  double SecondsPerGrid(double fps) const { return vision_.temporal_patch_size / fps; }

 private:
  VisionConfig vision_;
  PreprocessorConfig preprocessor_;
};

}  // namespace triptych::models
