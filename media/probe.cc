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
  if (bytes.substr(0, 6) == "GIF87a" || bytes.substr(0, 6) == "GIF89a") return Format::kGif;
  if (bytes.substr(0, 2) == "BM") return Format::kBmp;
  return std::nullopt;
}

int64_t DecodeCost(const Probe& probe) {
  const int64_t pixels =
      int64_t{probe.width} * probe.height * probe.reduction * probe.reduction;  // as stored
  switch (probe.format) {
    case Format::kJpeg:
      // Each scan walks all coefficients; the arithmetic behind them is done once.
      return probe.passes == 1 ? pixels : pixels + pixels * probe.passes / 8;
    case Format::kPng:
      return 2 * pixels;
    case Format::kWebp:
      return 2 * pixels;
    case Format::kGif:
    case Format::kBmp:
      return pixels;
  }
  return pixels;
}

namespace {

absl::StatusOr<Probe> ProbeFormat(absl::string_view bytes, Format format, const Limits& limits) {
  switch (format) {
    case Format::kJpeg:
      return ProbeJpeg(bytes, limits);
    case Format::kPng:
      return ProbePng(bytes);
    case Format::kWebp:
      return ProbeWebp(bytes);
    case Format::kGif:
      return ProbeGif(bytes);
    case Format::kBmp:
      return ProbeBmp(bytes);
  }
  return UnsupportedImageFormat();
}

int64_t Pixels(const Probe& probe, int reduction) {
  return int64_t{Reduced(probe.width, reduction)} * Reduced(probe.height, reduction);
}

// The least that brings the picture within the limit; 0 when none does.
int ReductionOf(const Probe& probe, Format format, const Limits& limits) {
  const bool jpeg = format == Format::kJpeg;
  const bool reducible = (jpeg || format == Format::kPng) && !probe.needs_whole;
  constexpr int kMost = 8;
  for (int reduction = 1; reduction <= (reducible ? kMost : 1); reduction += jpeg ? reduction : 1) {
    if (Pixels(probe, reduction) <= limits.max_pixels) return reduction;
  }
  return 0;
}

}  // namespace

absl::StatusOr<Probe> ProbeImage(absl::string_view bytes, const Limits& limits) {
  if (static_cast<int64_t>(bytes.size()) > limits.max_bytes) return ImageTooLarge();
  const std::optional<Format> format = SniffFormat(bytes);
  if (!format.has_value()) return UnsupportedImageFormat();
  absl::StatusOr<Probe> probe = ProbeFormat(bytes, *format, limits);
  RETURN_IF_ERROR(probe.status());
  probe->format = *format;
  probe->reduction = ReductionOf(*probe, *format, limits);
  if (probe->width > 2 * limits.max_side || probe->height > 2 * limits.max_side ||
      Pixels(*probe, 1) > limits.max_stored_pixels || probe->reduction == 0) {
    return ImageTooLarge();
  }
  probe->width = Reduced(probe->width, probe->reduction);
  probe->height = Reduced(probe->height, probe->reduction);
  if (probe->width > limits.max_side || probe->height > limits.max_side) return ImageTooLarge();
  if (SwapsSides(probe->orientation)) std::swap(probe->width, probe->height);
  return probe;
}

}  // namespace triptych::media
