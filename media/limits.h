#pragma once

// What a picture from outside may be, and how its refusal is worded. The texts are fixed: they
// never hold a path, an address or a decoder's own words.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace triptych::media {

struct Limits {
  int64_t max_bytes = int64_t{20} << 20;
  // Decoded size. 32 Mpixel as RGB are 96 MiB, the largest buffer of a decode.
  int64_t max_pixels = int64_t{32} << 20;
  int max_side = 32768;
  // As stored. What is between this and max_pixels is made smaller while it is decoded, where the
  // format allows it without holding all of it. 179 Mpixel is what Pillow takes without complaint.
  int64_t max_stored_pixels = int64_t{179'000'000};
  // Passes over a progressive JPEG; encoders make about 10. Each costs a walk over all
  // coefficients.
  int max_scans = 64;
};

// A JPEG can be decoded at n eighths of its size, which skips most of the arithmetic.
inline constexpr int kWholeScale = 8;
inline int ScaledSide(int side, int eighths) {
  return (side * eighths + kWholeScale - 1) / kWholeScale;
}

// The three refusals, all INVALID_ARGUMENT; each message is the error code that clients see.
inline constexpr char kImageTooLarge[] = "image_too_large";
inline constexpr char kImageMalformed[] = "image_malformed";
inline constexpr char kUnsupportedImageFormat[] = "unsupported_image_format";

inline absl::Status ImageTooLarge() { return absl::InvalidArgumentError(kImageTooLarge); }
inline absl::Status ImageMalformed() { return absl::InvalidArgumentError(kImageMalformed); }
inline absl::Status UnsupportedImageFormat() {
  return absl::InvalidArgumentError(kUnsupportedImageFormat);
}

}  // namespace triptych::media
