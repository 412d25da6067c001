// The headers of a BMP file: the one of OS/2 (12 bytes) and those of Windows (40 and more).

#include <cstdlib>

#include "base/status.h"
#include "media/bmp_header.h"
#include "media/formats.h"

namespace triptych::media {

absl::StatusOr<BmpHeader> ReadBmpHeader(absl::string_view bytes) {
  ByteReader reader(bytes);
  reader.Take(10);
  BmpHeader header;
  header.pixels_at = reader.Little(4);
  const uint32_t size = reader.Little(4);
  const bool old = size == 12;
  if (!old && (size < 40 || size > 124)) return UnsupportedImageFormat();
  const auto side = [&] {
    return old ? static_cast<int64_t>(reader.Little(2))
               : static_cast<int64_t>(static_cast<int32_t>(reader.Little(4)));
  };
  const int64_t width = side(), height = side();
  reader.Take(2);  // planes
  header.bits = static_cast<int>(reader.Little(2));
  if (!old) {
    header.compression = reader.Little(4);
    reader.Take(12);
    header.colors = reader.Little(4);
    reader.Take(4);
  }
  if (header.compression == BmpHeader::kFields) {
    for (uint32_t& mask : header.masks) mask = reader.Little(4);
  }
  if (!reader.ok() || width <= 0 || height == 0 || width > INT32_MAX ||
      std::llabs(height) > INT32_MAX) {
    return ImageMalformed();
  }
  header.width = static_cast<int>(width);
  header.height = static_cast<int>(std::llabs(height));
  header.top_down = height < 0;
  header.palette_at = 14 + size_t{size};
  header.palette_entry = old ? 3 : 4;
  const bool fields = header.compression == BmpHeader::kFields;
  if (!(header.compression == BmpHeader::kPlain || fields)) return UnsupportedImageFormat();
  const int bits = header.bits;
  const bool palette = bits == 1 || bits == 4 || bits == 8;
  if (!(bits == 16 || bits == 24 || bits == 32 || (palette && !fields)) || (bits == 24 && fields)) {
    return UnsupportedImageFormat();
  }
  if (palette && header.colors == 0) header.colors = 1u << bits;
  if (header.colors > 256) return ImageMalformed();
  return header;
}

absl::StatusOr<Probe> ProbeBmp(absl::string_view bytes) {
  ASSIGN_OR_RETURN(const BmpHeader header, ReadBmpHeader(bytes));
  // The padding of the last row may be missing.
  const int64_t last_row = (int64_t{header.width} * header.bits + 7) / 8;
  const int64_t needed = header.pixels_at + header.row_bytes() * (header.height - 1) + last_row;
  if (needed > static_cast<int64_t>(bytes.size())) return ImageMalformed();
  Probe probe;
  probe.width = header.width;
  probe.height = header.height;
  return probe;
}

}  // namespace triptych::media
