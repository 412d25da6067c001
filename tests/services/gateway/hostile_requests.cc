#include "tests/services/gateway/hostile_requests.h"

#include <zlib.h>

#include <algorithm>

#include "tests/media/picture_writer.h"

namespace triptych::services::testing {
namespace {

using triptych::testing::BigEndian;
using triptych::testing::Gradient;
using triptych::testing::JpegKind;
using triptych::testing::PngChunk;
using triptych::testing::PngKind;
using triptych::testing::WriteJpeg;
using triptych::testing::WritePng;

std::string Png(uint32_t width, uint32_t height) {
  const std::string header =
      BigEndian(width, 4) + BigEndian(height, 4) + std::string("\x08\x02\0\0\0", 5);
  return "\x89PNG\r\n\x1a\n" + PngChunk("IHDR", header) + PngChunk("IDAT", "x") +
         PngChunk("IEND", "");
}

// A JPEG whose frame declares another size.
std::string Jpeg(uint32_t width, uint32_t height) {
  std::string jpeg = WriteJpeg(Gradient(16, 16), JpegKind::kBaseline);
  return jpeg.replace(jpeg.find("\xff\xc0") + 5, 4, BigEndian(height, 2) + BigEndian(width, 2));
}

std::string ManyScans() {
  const std::string jpeg = WriteJpeg(Gradient(16, 16), JpegKind::kProgressive);
  const size_t scan = jpeg.find("\xff\xda");
  const size_t next = jpeg.find("\xff\xc4", scan + 2);
  std::string scans;
  for (int i = 0; i < 1000; ++i) scans += jpeg.substr(scan, next - scan);
  return jpeg.substr(0, scan) + scans + jpeg.substr(scan);
}

std::string AnimatedWebp() {
  const std::string chunk = std::string("VP8X\x0a\0\0\0\x02\0\0\0", 12) + std::string(6, '\0');
  return "RIFF" + std::string(1, static_cast<char>(4 + chunk.size())) +
         std::string("\0\0\0WEBP", 7) + chunk;
}

}  // namespace

std::string GoodPicture() { return WritePng(Gradient(64, 64), PngKind()); }

std::vector<HostilePicture> HostilePictures() {
  const std::string jpeg = WriteJpeg(Gradient(24, 17), JpegKind::kBaseline);
  return {
      {"PNG 100k x 100k", Png(100'000, 100'000), "image_too_large"},
      {"PNG 2^31 wide", Png(0x80000000, 5), "image_malformed"},
      {"JPEG 65535 x 65535", Jpeg(65535, 65535), "image_too_large"},
      {"a thousand scans", ManyScans(), "image_too_large"},
      {"animated WebP without a frame", AnimatedWebp(), "image_malformed"},
      {"0 x 5", Png(0, 5), "image_malformed"},
      {"5 x 0", Png(5, 0), "image_malformed"},
      {"1 x 100000", Png(1, 100'000), "image_too_large"},
      {"1 x 30000", Png(1, 30'000), "image_malformed"},
      {"30000 x 1", Jpeg(30'000, 1), "image_malformed"},
      {"JPEG cut inside its header", jpeg.substr(0, jpeg.find("\xff\xc0") + 4), "image_malformed"},
      {"JPEG cut inside its scan", jpeg.substr(0, jpeg.size() - 20), "image_malformed"},
      {"nothing", "", "unsupported_image_format"},
      {"SVG", "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
       "unsupported_image_format"},
      {"HTML", "<html><img src='http://127.0.0.1/'></html>", "unsupported_image_format"},
      {"GIF without a picture", std::string("GIF89a\1\0\1\0\0\0\0;", 14), "image_malformed"},
  };
}

}  // namespace triptych::services::testing
