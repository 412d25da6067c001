#include "models/processor/image_processor.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "models/processor/resize.h"

namespace triptych::models {
namespace {

constexpr int kChannels = 3;

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

absl::StatusOr<Frames> ImageProcessor::FramesOf(absl::Span<const base::Image> images) const {
  if (images.empty()) return absl::InvalidArgumentError("a video of no frames");
  const int width = images[0].width, height = images[0].height;
  for (const base::Image& image : images) {
    if (image.width != width || image.height != height) {
      return absl::InvalidArgumentError("frames of one video differ in size");
    }
  }
  Frames frames;
  ASSIGN_OR_RETURN(frames.grid, VideoGridOf(width, height, static_cast<int>(images.size())));
  frames.pixels.reserve(size_t{kChannels} * WidthOf(frames.grid) * HeightOf(frames.grid) *
                        images.size());
  for (const base::Image& image : images) Append(image, &frames);
  return frames;
}

void ImageProcessor::Append(const base::Image& image, Frames* frames) const {
  const Size size{WidthOf(frames->grid), HeightOf(frames->grid)};
  const auto append = [&](const std::vector<uint8_t>& pixels) {
    frames->pixels.insert(frames->pixels.end(), pixels.begin(), pixels.end());
  };
  if (size == Size{image.width, image.height}) {
    append(image.pixels);
  } else {
    append(ResizeBicubic(image, size).pixels);
  }
  ++frames->count;
}

}  // namespace triptych::models
