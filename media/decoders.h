#pragma once

// One decoder a format, behind DecodeImage().

#include <cstdint>

#include "absl/strings/string_view.h"
#include "base/image.h"

namespace triptych::media {

// Each fills `image`, whose size the probe has found and whose pixels are allocated, from bytes
// that the probe has accepted. False when pixels are missing or broken, or another size is found;
// the pixels are then undefined. `eighths`: see ScaledSide(); `reduction`: see Probe.
bool DecodeJpeg(absl::string_view bytes, int eighths, base::Image* image);
bool DecodePng(absl::string_view bytes, int reduction, base::Image* image);
bool DecodeWebp(absl::string_view bytes, base::Image* image);
bool DecodeGif(absl::string_view bytes, base::Image* image);
bool DecodeBmp(absl::string_view bytes, base::Image* image);

// `value` with coverage `alpha` on white, rounded to nearest.
inline uint8_t OnWhite(uint8_t value, uint8_t alpha) {
  const uint32_t sum = value * uint32_t{alpha} + 255u * (255u - alpha) + 128u;
  return static_cast<uint8_t>(((sum >> 8) + sum) >> 8);
}

}  // namespace triptych::media
