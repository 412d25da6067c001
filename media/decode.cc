#include "media/decode.h"

#include <utility>

#include "base/status.h"
#include "media/decoders.h"
#include "media/exif.h"
#include "media/probe.h"

namespace triptych::media {
namespace {

// Where pixel (x, y) of the upright picture lies in the stored one, by the eight cases of EXIF.
struct Source {
  int x = 0, y = 0;
};
Source SourceOf(int orientation, int x, int y, const base::Image& stored) {
  const int last_x = stored.width - 1, last_y = stored.height - 1;
  switch (orientation) {
    case 2:
      return {last_x - x, y};
    case 3:
      return {last_x - x, last_y - y};
    case 4:
      return {x, last_y - y};
    case 5:
      return {y, x};
    case 6:
      return {y, last_y - x};
    case 7:
      return {last_x - y, last_y - x};
    case 8:
      return {last_x - y, x};
    default:
      return {x, y};
  }
}

base::Image Upright(base::Image stored, int orientation) {
  if (orientation == 1) return stored;
  base::Image image;
  image.width = SwapsSides(orientation) ? stored.height : stored.width;
  image.height = SwapsSides(orientation) ? stored.width : stored.height;
  image.pixels.resize(stored.pixels.size());
  uint8_t* out = image.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, out += 3) {
      const Source from = SourceOf(orientation, x, y, stored);
      const uint8_t* in = &stored.pixels[(size_t{3} * from.y) * stored.width + size_t{3} * from.x];
      out[0] = in[0];
      out[1] = in[1];
      out[2] = in[2];
    }
  }
  return image;
}

bool DecodeStored(absl::string_view bytes, const Probe& probe, int eighths, base::Image* image) {
  switch (probe.format) {
    case Format::kJpeg:
      return DecodeJpeg(bytes, eighths, image);
    case Format::kPng:
      return DecodePng(bytes, probe.reduction, image);
    case Format::kGif:
      return DecodeGif(bytes, image);
    case Format::kBmp:
      return DecodeBmp(bytes, image);
    case Format::kWebp:
      return DecodeWebp(bytes, image);
  }
  return false;
}

}  // namespace

absl::StatusOr<base::Image> DecodeImage(absl::string_view bytes, const Limits& limits,
                                        int eighths) {
  ASSIGN_OR_RETURN(const Probe probe, ProbeImage(bytes, limits));
  base::Image stored;
  if (!MayScale(probe)) eighths = kWholeScale;
  stored.width = ScaledSide(probe.width, eighths);
  stored.height = ScaledSide(probe.height, eighths);
  if (probe.reduction > 1) eighths = kWholeScale / probe.reduction;
  if (SwapsSides(probe.orientation)) std::swap(stored.width, stored.height);
  stored.pixels.resize(size_t{3} * stored.width * stored.height);
  if (!DecodeStored(bytes, probe, eighths, &stored)) return ImageMalformed();
  return Upright(std::move(stored), probe.orientation);
}

}  // namespace triptych::media
