#pragma once

// Resizing as the published processor does it: sizes by "smart resize", pixels by bicubic
// interpolation with antialias on 8-bit values.

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/image.h"

namespace triptych::models {

struct Size {
  int width = 0;
  int height = 0;
  friend bool operator==(const Size&, const Size&) = default;
};

// The size nearest to `size` whose sides are multiples of `factor`, within the bounds on pixels,
// about the same shape (Qwen2-VL's smart_resize). INVALID_ARGUMENT when a side is not positive or
// one is more than 200 times the other.
absl::StatusOr<Size> SmartResize(Size size, int factor, int64_t min_pixels, int64_t max_pixels);

// Bicubic (a = -0.5), the kernel widened by the scale when shrinking; horizontal pass first,
// rounded and clamped to 8 bits, then vertical; fixed-point weights with as many bits as fit 16.
// This is Pillow's scheme with the precision of PyTorch's 8-bit path.
base::Image ResizeBicubic(const base::Image& image, Size size);

}  // namespace triptych::models
