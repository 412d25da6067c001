#include "media/exif.h"

#include "media/byte_reader.h"

namespace triptych::media {
namespace {

// Bytes of TIFF's types that hold one integer; 0 for the others. Writers take whichever they like.
int IntegerSize(uint32_t type) {
  switch (type) {
    case 1:  // BYTE
    case 6:  // SBYTE
      return 1;
    case 3:  // SHORT
    case 8:  // SSHORT
      return 2;
    case 4:  // LONG
    case 9:  // SLONG
      return 4;
    default:
      return 0;
  }
}

}  // namespace

int ExifOrientation(absl::string_view tiff) {
  constexpr uint32_t kOrientationTag = 0x0112;
  ByteReader reader(tiff);
  const absl::string_view order = reader.Take(2);
  if (order != "II" && order != "MM") return 1;
  const bool big = order == "MM";
  const auto number = [&](int size) { return big ? reader.Big(size) : reader.Little(size); };
  if (number(2) != 42) return 1;
  reader.Seek(number(4));
  const uint32_t entries = number(2);
  for (uint32_t i = 0; i < entries && reader.ok(); ++i) {
    const uint32_t tag = number(2), type = number(2), count = number(4);
    const size_t value_at = reader.position();
    const int size = IntegerSize(type);
    const uint32_t value = size > 0 ? number(size) : 0;
    reader.Seek(value_at);
    reader.Take(4);
    if (tag != kOrientationTag) continue;
    const bool good = reader.ok() && size > 0 && count == 1 && value >= 1 && value <= 8;
    return good ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace triptych::media
