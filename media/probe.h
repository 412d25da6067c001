#pragma once

// Measures a picture from its headers alone, with parsers of our own: no pixel is decoded, no
// memory allocated from a declared size, every byte is looked at no more than once. For the
// gateway.

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "media/limits.h"

namespace triptych::media {

enum class Format { kJpeg, kPng, kWebp, kGif, kBmp };

struct Probe {
  Format format = Format::kJpeg;
  // Pixels, after the EXIF orientation is applied and the picture made smaller: what Decode()
  // gives. Of an animation, its first frame.
  int width = 0;
  int height = 0;
  // EXIF orientation, 1 to 8 (1 is upright).
  int orientation = 1;
  // Each side is divided by this, rounded up, while decoding: a power of two to 8 for a JPEG, any
  // for a PNG without interlace, 1 for everything else.
  int reduction = 1;
  // Its pixels must be held whole before they can be made smaller: progressive or interlaced.
  bool needs_whole = false;
  // Passes over all pixels: the scans of a progressive JPEG, 7 of an interlaced PNG; else 1.
  int passes = 1;
};

// Whether it may be decoded at a fraction of its size by request: a JPEG that is not reduced
// anyway.
inline bool MayScale(const Probe& probe) {
  return probe.format == Format::kJpeg && probe.reduction == 1;
}

// What decoding takes, in pixels of a baseline JPEG: known at the door, for limits and for queues
// that are fair.
int64_t DecodeCost(const Probe& probe);

// INVALID_ARGUMENT with one of the three texts of limits.h: an unknown format or a JPEG that is not
// baseline or progressive is unsupported; more bytes, pixels, side or scans than `limits` allow is
// too large; the rest is malformed.
absl::StatusOr<Probe> ProbeImage(absl::string_view bytes, const Limits& limits);

}  // namespace triptych::media
