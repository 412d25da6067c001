// BMP: rows of plain pixels, usually from the bottom up.

#include <algorithm>
#include <array>
#include <vector>

#include "media/bmp_header.h"
#include "media/decoders.h"

namespace triptych::media {
namespace {

using Color = std::array<uint8_t, 3>;

// The value of a field of up to 32 bits, stretched to 8.
uint8_t Field(uint32_t pixel, uint32_t mask) {
  if (mask == 0) return 0;
  const int shift = __builtin_ctz(mask);
  const uint64_t most = mask >> shift;
  const uint64_t value = (pixel & mask) >> shift;
  return static_cast<uint8_t>(value * 255 / most);  // down, as others do
}

std::vector<Color> Palette(absl::string_view bytes, const BmpHeader& header) {
  std::vector<Color> palette(256);
  ByteReader reader(bytes);
  reader.Seek(header.palette_at);
  for (uint32_t i = 0; i < header.colors; ++i) {
    const uint32_t color = reader.Little(header.palette_entry);
    palette[i] = {static_cast<uint8_t>(color >> 16), static_cast<uint8_t>(color >> 8),
                  static_cast<uint8_t>(color)};
  }
  return palette;
}

class Rows {
 public:
  Rows(absl::string_view bytes, const BmpHeader& header)
      : header_(header), palette_(Palette(bytes, header)), masks_(header.masks) {
    if (header.compression == BmpHeader::kFields) return;
    if (header.bits == 16) masks_ = {0x7c00, 0x3e0, 0x1f};
    if (header.bits == 32) masks_ = {0xff0000, 0xff00, 0xff};
  }

  void Read(absl::string_view row, uint8_t* out) const {
    for (int x = 0; x < header_.width; ++x, out += 3) {
      const Color color = At(row, x);
      std::copy(color.begin(), color.end(), out);
    }
  }

 private:
  uint32_t Byte(absl::string_view row, int64_t at) const {
    return at < static_cast<int64_t>(row.size()) ? static_cast<unsigned char>(row[at]) : 0;
  }

  Color At(absl::string_view row, int x) const {
    const int bits = header_.bits;
    if (bits <= 8) {
      const int64_t bit = int64_t{x} * bits;
      const uint32_t byte = Byte(row, bit / 8);
      return palette_[(byte >> (8 - bits - bit % 8)) & ((1u << bits) - 1)];
    }
    const int64_t at = int64_t{x} * (bits / 8);
    uint32_t pixel = 0;
    for (int i = 0; i < bits / 8; ++i) pixel |= Byte(row, at + i) << (8 * i);
    if (bits == 24) {
      return {static_cast<uint8_t>(pixel >> 16), static_cast<uint8_t>(pixel >> 8),
              static_cast<uint8_t>(pixel)};
    }
    return {Field(pixel, masks_[0]), Field(pixel, masks_[1]), Field(pixel, masks_[2])};
  }

  const BmpHeader& header_;
  const std::vector<Color> palette_;
  std::array<uint32_t, 3> masks_;
};

}  // namespace

bool DecodeBmp(absl::string_view bytes, base::Image* image) {
  const absl::StatusOr<BmpHeader> header = ReadBmpHeader(bytes);
  if (!header.ok() || header->width != image->width || header->height != image->height) {
    return false;
  }
  const Rows rows(bytes, *header);
  for (int y = 0; y < image->height; ++y) {
    const int64_t stored = header->top_down ? y : image->height - 1 - y;
    const auto at = static_cast<size_t>(header->pixels_at + stored * header->row_bytes());
    if (at > bytes.size()) return false;
    rows.Read(bytes.substr(at, static_cast<size_t>(header->row_bytes())),
              image->pixels.data() + size_t{3} * y * image->width);
  }
  return true;
}

}  // namespace triptych::media
