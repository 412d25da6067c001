#include "models/processor/image_processor.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/status.h"
#include "models/processor/resize.h"

namespace triptych::models {
namespace {

constexpr int kChannels = 3;

// The float of every byte of every channel. The reference folds the division by 255 into mean and
// deviation, in float32.
using Normalization = std::array<std::array<float, 256>, kChannels>;

Normalization MakeNormalization(const PreprocessorConfig& preprocessor) {
  Normalization table;
  constexpr float kScale = 255.0f;
  for (size_t c = 0; c < kChannels; ++c) {
    const float mean = preprocessor.mean[c] * kScale, deviation = preprocessor.std[c] * kScale;
    for (int value = 0; value < 256; ++value) {
      table[c][static_cast<size_t>(value)] = (static_cast<float>(value) - mean) / deviation;
    }
  }
  return table;
}

// Writes patches of frames that already have the grid's size.
class PatchWriter {
 public:
  PatchWriter(const VisionConfig& vision, const PreprocessorConfig& preprocessor,
              const scheduler::Grid& grid)
      : normalization_(MakeNormalization(preprocessor)),
        grid_(grid),
        side_(vision.patch_size),
        merge_(vision.merge_size),
        frames_(vision.temporal_patch_size),
        plane_(size_t{1} * vision.patch_size * vision.patch_size),
        patch_(static_cast<size_t>(vision.patch_elements())) {}

  // Frame `slot` of the patches of grid step `t`.
  void WriteFrame(const base::Image& frame, int t, int slot, float* values) const {
    float* patch = values + patch_ * t * grid_.h * grid_.w + plane_ * slot;
    for (int unit_y = 0; unit_y < grid_.h; unit_y += merge_) {
      for (int unit_x = 0; unit_x < grid_.w; unit_x += merge_) {
        for (int i = 0; i < merge_ * merge_; ++i, patch += patch_) {
          WritePatch(frame, unit_x + i % merge_, unit_y + i / merge_, patch);
        }
      }
    }
  }

  // Copies frame 0 of all patches of step `t` to the slots from `first` on.
  void RepeatFrame(int t, int first, float* values) const {
    float* patch = values + patch_ * t * grid_.h * grid_.w;
    for (int i = 0; i < grid_.h * grid_.w; ++i, patch += patch_) {
      for (int c = 0; c < kChannels; ++c) {
        float* channel = patch + plane_ * frames_ * c;
        const float* last = channel + plane_ * (first - 1);
        for (int slot = first; slot < frames_; ++slot) {
          std::memcpy(channel + plane_ * slot, last, plane_ * sizeof(float));
        }
      }
    }
  }

 private:
  void WritePatch(const base::Image& frame, int column, int row, float* out) const {
    const size_t stride = size_t{kChannels} * frame.width;
    const uint8_t* in =
        frame.pixels.data() + stride * side_ * row + size_t{kChannels} * side_ * column;
    for (int y = 0; y < side_; ++y, in += stride) {
      float* red = out + y * side_;
      float* green = red + plane_ * frames_;
      float* blue = green + plane_ * frames_;
      for (int x = 0; x < side_; ++x) {
        red[x] = normalization_[0][in[kChannels * x]];
        green[x] = normalization_[1][in[kChannels * x + 1]];
        blue[x] = normalization_[2][in[kChannels * x + 2]];
      }
    }
  }

  const Normalization normalization_;
  const scheduler::Grid grid_;
  const int side_, merge_, frames_;
  const size_t plane_, patch_;  // elements of one channel of one frame, of one patch
};

}  // namespace

ImageProcessor::ImageProcessor(const ModelConfig& config)
    : vision_(config.vision), preprocessor_(config.preprocessor) {
  CHECK_EQ(vision_.in_channels, kChannels);
}

absl::StatusOr<scheduler::Grid> ImageProcessor::GridOf(int width, int height) const {
  return VideoGridOf(width, height, 1);
}

absl::StatusOr<scheduler::Grid> ImageProcessor::VideoGridOf(int width, int height,
                                                            int num_frames) const {
  constexpr int kMaxFrames = 1 << 16;
  if (num_frames <= 0 || num_frames > kMaxFrames) {
    return absl::InvalidArgumentError("a video of no frames, or of too many");
  }
  const int factor = vision_.patch_size * vision_.merge_size;
  ASSIGN_OR_RETURN(const Size size, SmartResize({width, height}, factor, preprocessor_.min_pixels,
                                                preprocessor_.max_pixels));
  const int steps = (num_frames + vision_.temporal_patch_size - 1) / vision_.temporal_patch_size;
  return scheduler::Grid{steps, size.height / vision_.patch_size, size.width / vision_.patch_size};
}

absl::StatusOr<Patches> ImageProcessor::Patchify(const base::Image& image) const {
  return PatchifyVideo(absl::MakeConstSpan(&image, 1));
}

absl::StatusOr<Patches> ImageProcessor::PatchifyVideo(absl::Span<const base::Image> frames) const {
  if (frames.empty()) return absl::InvalidArgumentError("a video of no frames");
  const int width = frames[0].width, height = frames[0].height;
  for (const base::Image& frame : frames) {
    if (frame.width != width || frame.height != height) {
      return absl::InvalidArgumentError("frames of one video differ in size");
    }
  }
  const auto num_frames = static_cast<int>(frames.size());
  Patches patches;
  ASSIGN_OR_RETURN(patches.grid, VideoGridOf(width, height, num_frames));
  patches.values.resize(static_cast<size_t>(patches.grid.patches() * vision_.patch_elements()));
  const PatchWriter writer(vision_, preprocessor_, patches.grid);
  const Size size{patches.grid.w * vision_.patch_size, patches.grid.h * vision_.patch_size};
  for (int f = 0; f < num_frames; ++f) {
    const int t = f / vision_.temporal_patch_size, slot = f % vision_.temporal_patch_size;
    const base::Image& frame = frames[static_cast<size_t>(f)];
    if (size == Size{width, height}) {
      writer.WriteFrame(frame, t, slot, patches.values.data());
    } else {
      writer.WriteFrame(ResizeBicubic(frame, size), t, slot, patches.values.data());
    }
    if (f + 1 == num_frames) writer.RepeatFrame(t, slot + 1, patches.values.data());
  }
  return patches;
}

}  // namespace triptych::models
