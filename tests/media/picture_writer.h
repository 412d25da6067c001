#pragma once

// Pictures for the tests, made from nothing.

#include <cstdint>
#include <string>
#include <vector>

#include "base/image.h"

namespace triptych::testing {

// A smooth coloured gradient, so that lossy formats come back close.
base::Image Gradient(int width, int height);

enum class JpegKind { kBaseline, kProgressive, kGray, kCmyk };
std::string WriteJpeg(const base::Image& image, JpegKind kind);

// As channels of `depth` bits: color_type 0 gray (of red), 2 RGB, 4 gray + alpha, 6 RGB + alpha.
struct PngKind {
  int color_type = 2;
  int depth = 8;
  uint8_t alpha = 255;
  bool interlaced = false;
};
std::string WritePng(const base::Image& image, const PngKind& kind);

// Lossless; alpha 255 everywhere unless given.
std::string WriteWebp(const base::Image& image, uint8_t alpha = 255);

// One PNG chunk with its checksum.
std::string PngChunk(const std::string& type, const std::string& body);
// `value` as `size` bytes, big-endian.
std::string BigEndian(uint64_t value, int size);
// An EXIF block (a TIFF file) that holds nothing but an orientation.
std::string ExifBlock(int orientation);
// `jpeg` with an APP1 segment of that orientation after its SOI.
std::string WithExif(const std::string& jpeg, int orientation);

}  // namespace triptych::testing
