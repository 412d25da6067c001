#include "media/probe.h"

#include <utility>

#include "base/status.h"
#include "media/exif.h"
#include "media/formats.h"

namespace triptych::media {

std::optional<Format> SniffFormat(absl::string_view bytes) {
  if (bytes.substr(0, 3) == "\xff\xd8\xff") return Format::kJpeg;
  if (bytes.substr(0, kPngSignature.size()) == kPngSignature) return Format::kPng;
  if (bytes.substr(0, 4) == "RIFF" && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") {
    return Format::kWebp;
  }
  return std::nullopt;
}

int64_t DecodeCost(const Probe& probe) {
  const int64_t pixels = int64_t{probe.width} * probe.height;
  switch (probe.format) {
    case Format::kJpeg:
      // Each scan walks all coefficients; the arithmetic behind them is done once.
      return probe.passes == 1 ? pixels : pixels + pixels * probe.passes / 8;
    case Format::kPng:
      return 2 * pixels;
    case Format::kWebp:
      return 2 * pixels;
  }
  return pixels;
}

absl::StatusOr<Probe> ProbeImage(absl::string_view bytes, const Limits& limits) {
  if (static_cast<int64_t>(bytes.size()) > limits.max_bytes) return ImageTooLarge();
  const std::optional<Format> format = SniffFormat(bytes);
  if (!format.has_value()) return UnsupportedImageFormat();
  absl::StatusOr<Probe> probe = *format == Format::kJpeg  ? ProbeJpeg(bytes, limits)
                                : *format == Format::kPng ? ProbePng(bytes)
                                                          : ProbeWebp(bytes);
  RETURN_IF_ERROR(probe.status());
  if (probe->width > limits.max_side || probe->height > limits.max_side ||
      int64_t{probe->width} * probe->height > limits.max_pixels) {
    return ImageTooLarge();
  }
  probe->format = *format;
  if (SwapsSides(probe->orientation)) std::swap(probe->width, probe->height);
  return probe;
}

}  // namespace triptych::media
