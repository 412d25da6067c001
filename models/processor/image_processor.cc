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

}  // namespace

// Writes patches of frames that already have the grid's size.
class ImageProcessor::Frames::Writer {
 public:
  Writer(const VisionConfig& vision, const PreprocessorConfig& preprocessor,
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
  ASSIGN_OR_RETURN(const scheduler::Grid grid, VideoGridOf(width, height, num_frames));
  Frames taken(*this, grid, num_frames);
  for (const base::Image& frame : frames) taken.Add(frame);
  return taken.Take();
}

ImageProcessor::Frames::Frames(const ImageProcessor& processor, const scheduler::Grid& grid,
                               int num_frames)
    : processor_(processor),
      num_frames_(num_frames),
      writer_(std::make_unique<Writer>(processor.vision_, processor.preprocessor_, grid)) {
  patches_.grid = grid;
  patches_.values.resize(static_cast<size_t>(grid.patches() * processor.vision_.patch_elements()));
}

ImageProcessor::Frames::~Frames() = default;

void ImageProcessor::Frames::Add(const base::Image& frame) {
  CHECK_TRUE(added_ < num_frames_);
  const int step = processor_.vision_.temporal_patch_size;
  const int t = added_ / step, slot = added_ % step;
  float* const values = patches_.values.data();
  const Size size{processor_.WidthOf(patches_.grid), processor_.HeightOf(patches_.grid)};
  if (size == Size{frame.width, frame.height}) {
    writer_->WriteFrame(frame, t, slot, values);
  } else {
    writer_->WriteFrame(ResizeBicubic(frame, size), t, slot, values);
  }
  if (++added_ == num_frames_) writer_->RepeatFrame(t, slot + 1, values);
}

}  // namespace triptych::models
