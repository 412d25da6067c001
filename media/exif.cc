#include "media/exif.h"

#include "media/byte_reader.h"

namespace triptych::media {

int ExifOrientation(absl::string_view tiff) {
  constexpr uint32_t kOrientationTag = 0x0112, kShort = 3;
  ByteReader reader(tiff);
  const absl::string_view order = reader.Take(2);
  if (order != "II" && order != "MM") return 1;
  const bool big = order == "MM";
  const auto number = [&](int size) { return big ? reader.Big(size) : reader.Little(size); };
  if (number(2) != 42) return 1;
  reader.Seek(number(4));
  const uint32_t entries = number(2);
  for (uint32_t i = 0; i < entries && reader.ok(); ++i) {
    const uint32_t tag = number(2), type = number(2), count = number(4), value = number(2);
    reader.Take(2);
    if (tag != kOrientationTag) continue;
    return reader.ok() && type == kShort && count == 1 && value >= 1 && value <= 8
               ? static_cast<int>(value)
               : 1;
  }
  return 1;
}

}  // namespace triptych::media
