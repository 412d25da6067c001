#pragma once

// Measures a picture from its headers alone, with parsers of our own: no pixel is decoded, no
// memory allocated from a declared size, every byte is looked at no more than once. For the
// gateway.

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "media/limits.h"

namespace triptych::media {

enum class Format { kJpeg, kPng, kWebp };

struct Probe {
  Format format = Format::kJpeg;
  // Pixels, after the EXIF orientation is applied: what Decode() gives.
  int width = 0;
  int height = 0;
  // EXIF orientation, 1 to 8 (JPEG only; 1 is upright).
  int orientation = 1;
  // Passes over all pixels: the scans of a progressive JPEG, 7 of an interlaced PNG; else 1.
  int passes = 1;
};

// What decoding takes, in pixels of a baseline JPEG: known at the door, for limits and for queues
// that are fair.
int64_t DecodeCost(const Probe& probe);

// INVALID_ARGUMENT with one of the three texts of limits.h: an unknown format, an animated WebP or
// a JPEG that is not baseline or progressive is unsupported; more bytes, pixels, side or scans than
// `limits` allow is too large; the rest is malformed.
absl::StatusOr<Probe> ProbeImage(absl::string_view bytes, const Limits& limits);

}  // namespace triptych::media
