// The screen of a GIF file (GIF89a specification, sections 17 and 18).

#include "base/status.h"
#include "media/byte_reader.h"
#include "media/formats.h"

namespace triptych::media {

absl::StatusOr<Probe> ProbeGif(absl::string_view bytes) {
  ByteReader reader(bytes);
  reader.Take(6);
  Probe probe;
  probe.width = static_cast<int>(reader.Little(2));
  probe.height = static_cast<int>(reader.Little(2));
  reader.Take(3);
  // A trailer or less cannot follow: an image has a descriptor of ten bytes.
  if (!reader.ok() || probe.width == 0 || probe.height == 0 || reader.left() < 10) {
    return ImageMalformed();
  }
  return probe;
}

}  // namespace triptych::media
