// Walks the chunks of a PNG file (W3C PNG specification, section 5).

#include "base/status.h"
#include "media/byte_reader.h"
#include "media/exif.h"
#include "media/formats.h"

namespace triptych::media {
namespace {

bool IsAllowedDepth(uint32_t color_type, uint32_t depth) {
  switch (color_type) {
    case 0:
      return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
    case 3:
      return depth == 1 || depth == 2 || depth == 4 || depth == 8;
    case 2:
    case 4:
    case 6:
      return depth == 8 || depth == 16;
    default:
      return false;
  }
}

absl::StatusOr<Probe> ParseHeader(absl::string_view body) {
  ByteReader reader(body);
  const uint32_t width = reader.Big(4), height = reader.Big(4), depth = reader.Big(1);
  const uint32_t color_type = reader.Big(1), compression = reader.Big(1), filter = reader.Big(1);
  const uint32_t interlace = reader.Big(1);
  constexpr uint32_t kMaxSide = 0x7fffffff;
  if (!reader.ok() || body.size() != 13 || width == 0 || height == 0 || width > kMaxSide ||
      height > kMaxSide || compression != 0 || filter != 0 || interlace > 1 ||
      !IsAllowedDepth(color_type, depth)) {
    return ImageMalformed();
  }
  Probe probe;
  probe.needs_whole = interlace == 1;
  probe.width = static_cast<int>(width);
  probe.height = static_cast<int>(height);
  probe.passes = interlace == 1 ? 7 : 1;
  return probe;
}

}  // namespace

absl::StatusOr<Probe> ProbePng(absl::string_view bytes) {
  ByteReader reader(bytes);
  reader.Take(kPngSignature.size());
  Probe probe;
  bool has_pixels = false;
  while (true) {
    const uint32_t length = reader.Big(4);
    const absl::string_view type = reader.Take(4);
    const absl::string_view body = reader.Take(length);
    reader.Take(4);  // checksum
    // A file that lost its end still has its pixels, or else the decoder will say so.
    if (!reader.ok() && has_pixels) break;
    if (!reader.ok()) return ImageMalformed();
    if ((probe.width == 0) != (type == "IHDR")) return ImageMalformed();
    if (type == "IHDR") {
      ASSIGN_OR_RETURN(probe, ParseHeader(body));
    }
    if (type == "eXIf") probe.orientation = ExifOrientation(body);
    has_pixels |= type == "IDAT";
    if (type == "IEND") break;
  }
  if (!has_pixels) return ImageMalformed();
  return probe;
}

}  // namespace triptych::media
