#pragma once

// What stands before the pixels of a BMP file.

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "media/byte_reader.h"

namespace triptych::media {

struct BmpHeader {
  static constexpr uint32_t kPlain = 0, kFields = 3;
  int width = 0, height = 0;  // positive
  bool top_down = false;
  int bits = 0;  // a pixel: 1, 4 or 8 with a palette, 16, 24 or 32 without
  uint32_t compression = kPlain;
  std::array<uint32_t, 3> masks{};  // kFields: red, green, blue
  uint32_t pixels_at = 0;
  size_t palette_at = 0;
  int palette_entry = 4;  // bytes, blue first
  uint32_t colors = 0;    // of the palette

  // Rows end at multiples of four bytes.
  int64_t row_bytes() const { return (int64_t{width} * bits + 31) / 32 * 4; }
};

// INVALID_ARGUMENT as ProbeImage(): run-length and other codings are unsupported.
absl::StatusOr<BmpHeader> ReadBmpHeader(absl::string_view bytes);

}  // namespace triptych::media
