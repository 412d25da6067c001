// Reads the chunks of a WebP file (RFC 9649).

#include "base/status.h"
#include "media/byte_reader.h"
#include "media/exif.h"
#include "media/formats.h"

namespace triptych::media {
namespace {

constexpr uint32_t kAnimationFlag = 0x02;

// Sizes of a lossy key frame, a lossless picture, an extended header.
bool ParseLossy(absl::string_view body, Probe* probe) {
  ByteReader reader(body);
  const uint32_t frame_tag = reader.Little(3);
  const bool is_key_frame = (frame_tag & 1) == 0 && reader.Big(3) == 0x9d012a;
  probe->width = static_cast<int>(reader.Little(2) & 0x3fff);
  probe->height = static_cast<int>(reader.Little(2) & 0x3fff);
  return reader.ok() && is_key_frame;
}

bool ParseLossless(absl::string_view body, Probe* probe) {
  ByteReader reader(body);
  const bool signature = reader.Little(1) == 0x2f;
  const uint32_t bits = reader.Little(4);
  probe->width = static_cast<int>(bits & 0x3fff) + 1;
  probe->height = static_cast<int>(bits >> 14 & 0x3fff) + 1;
  return reader.ok() && signature && bits >> 29 == 0;
}

}  // namespace

absl::StatusOr<Probe> ProbeWebp(absl::string_view bytes) {
  ByteReader reader(bytes);
  reader.Take(4);
  const uint32_t riff_size = reader.Little(4);
  reader.Take(4);
  if (!reader.ok() || riff_size < 4 || riff_size - 4 > reader.left()) return ImageMalformed();
  ByteReader chunks(bytes.substr(reader.position(), riff_size - 4));
  Probe canvas, picture;
  int orientation = 1;
  bool animated = false, has_frame = false;
  while (chunks.left() > 0) {
    const absl::string_view type = chunks.Take(4);
    const uint32_t size = chunks.Little(4);
    const absl::string_view body = chunks.Take(size);
    if (!chunks.ok()) return ImageMalformed();
    if (size % 2 == 1 && chunks.left() > 0) chunks.Take(1);
    if (type == "VP8X") {
      ByteReader header(body);
      animated = (header.Little(4) & kAnimationFlag) != 0;
      canvas.width = static_cast<int>(header.Little(3)) + 1;
      canvas.height = static_cast<int>(header.Little(3)) + 1;
      if (!header.ok()) return ImageMalformed();
    }
    has_frame |= type == "ANMF";
    if (type == "EXIF") {
      // Some writers repeat JPEG's prefix.
      const absl::string_view prefix("Exif\0\0", 6);
      orientation = ExifOrientation(body.substr(0, 6) == prefix ? body.substr(6) : body);
    }
    if (type == "VP8 " && !ParseLossy(body, &picture)) return ImageMalformed();
    if (type == "VP8L" && !ParseLossless(body, &picture)) return ImageMalformed();
  }
  // The first frame is shown on the canvas.
  if (animated && has_frame) picture = canvas;
  if (picture.width <= 0 || picture.height <= 0) return ImageMalformed();
  if (canvas.width > 0 && (canvas.width != picture.width || canvas.height != picture.height)) {
    return ImageMalformed();
  }
  picture.orientation = orientation;
  return picture;
}

}  // namespace triptych::media
