// What is defended: every kind of picture that the formats allow comes out as the RGB that its
// writer meant, upright and on white, and the probe says the same size as the decoder.

#include "media/decode.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>

#include "media/exif.h"
#include "media/probe.h"
#include "tests/media/picture_writer.h"

namespace triptych::media {
namespace {

using testing::Gradient;
using testing::JpegKind;
using testing::PngKind;
using testing::WriteJpeg;
using testing::WritePng;
using testing::WriteWebp;

base::Image Decode(const std::string& bytes) {
  const auto probe = ProbeImage(bytes, Limits());
  REQUIRE(probe.ok());
  auto image = DecodeImage(bytes, Limits());
  REQUIRE(image.ok());
  CHECK(probe->width == image->width);
  CHECK(probe->height == image->height);
  CHECK(image->pixels.size() == size_t{3} * image->width * image->height);
  return *std::move(image);
}

int LargestDifference(const base::Image& a, const base::Image& b) {
  REQUIRE(a.pixels.size() == b.pixels.size());
  int largest = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    largest = std::max(largest, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
  }
  return largest;
}

// All three channels show red.
base::Image GrayOf(base::Image image) {
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    image.pixels[i + 1] = image.pixels[i + 2] = image.pixels[i];
  }
  return image;
}

base::Image OnWhite(base::Image image, int alpha) {
  for (uint8_t& value : image.pixels) {
    value = static_cast<uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  return image;
}

}  // namespace

TEST_CASE("DecodeImage: lossless pictures come back exactly", "[media]") {
  const base::Image image = Gradient(37, 21);
  CHECK(Decode(WritePng(image, PngKind())).pixels == image.pixels);
  CHECK(Decode(WritePng(image, {.interlaced = true})).pixels == image.pixels);
  CHECK(Decode(WritePng(image, {.depth = 16})).pixels == image.pixels);
  CHECK(Decode(WritePng(image, {.color_type = 0})).pixels == GrayOf(image).pixels);
  CHECK(Decode(WritePng(image, {.color_type = 0, .depth = 16})).pixels == GrayOf(image).pixels);
  CHECK(Decode(WritePng(image, {.color_type = 6})).pixels == image.pixels);
  CHECK(Decode(WriteWebp(image)).pixels == image.pixels);
}

TEST_CASE("DecodeImage: alpha is composited on white", "[media]") {
  const base::Image image = Gradient(9, 9);
  for (const int alpha : {0, 1, 100, 254}) {
    const auto byte = static_cast<uint8_t>(alpha);
    const base::Image expected = OnWhite(image, alpha);
    CHECK(LargestDifference(Decode(WritePng(image, {.color_type = 6, .alpha = byte})), expected) <=
          1);
    CHECK(LargestDifference(Decode(WritePng(image, {.color_type = 4, .alpha = byte})),
                            GrayOf(expected)) <= 1);
    if (alpha > 0) CHECK(LargestDifference(Decode(WriteWebp(image, byte)), expected) <= 1);
  }
}

TEST_CASE("DecodeImage: JPEGs of every colour space come back close", "[media]") {
  const base::Image image = Gradient(64, 48);
  CHECK(LargestDifference(Decode(WriteJpeg(image, JpegKind::kBaseline)), image) <= 12);
  CHECK(LargestDifference(Decode(WriteJpeg(image, JpegKind::kProgressive)), image) <= 12);
  CHECK(LargestDifference(Decode(WriteJpeg(image, JpegKind::kCmyk)), image) <= 12);
  CHECK(LargestDifference(Decode(WriteJpeg(image, JpegKind::kGray)), GrayOf(image)) <= 12);
}

TEST_CASE("DecodeImage: the eight orientations turn the picture upright", "[media]") {
  // A corner of each colour, far apart: where the stored top left corner goes tells the case.
  const base::Image image = Gradient(32, 16);
  const std::string jpeg = WriteJpeg(image, JpegKind::kBaseline);
  const base::Image stored = Decode(jpeg);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    INFO("orientation " << orientation);
    const base::Image turned = Decode(testing::WithExif(jpeg, orientation));
    CHECK(turned.width == (SwapsSides(orientation) ? 16 : 32));
    const bool at_right =
        orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    const bool at_bottom =
        orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    const int x = at_right ? turned.width - 1 : 0, y = at_bottom ? turned.height - 1 : 0;
    const size_t at = size_t{3} * (static_cast<size_t>(y) * turned.width + x);
    CHECK(std::equal(stored.pixels.begin(), stored.pixels.begin() + 3, turned.pixels.begin() + at));
  }
  CHECK(Decode(testing::WithExif(jpeg, 9)).pixels == stored.pixels);
  CHECK(Decode(testing::WithExif(jpeg, 0)).pixels == stored.pixels);
}

TEST_CASE("DecodeImage: extreme shapes decode", "[media]") {
  for (const auto& [width, height] :
       std::vector<std::pair<int, int>>{{1, 1}, {1, 20000}, {20000, 1}}) {
    const base::Image image = Gradient(width, height);
    CHECK(Decode(WritePng(image, PngKind())).pixels == image.pixels);
    CHECK(Decode(WriteJpeg(image, JpegKind::kProgressive)).width == width);
  }
}

TEST_CASE("ExifOrientation: both byte orders are read, nonsense is upright", "[media]") {
  const std::string big = testing::ExifBlock(6);
  CHECK(ExifOrientation(big) == 6);
  const std::string little("II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
                           26);
  CHECK(ExifOrientation(little) == 8);
  for (size_t cut = 0; cut < 20; ++cut) CHECK(ExifOrientation(big.substr(0, cut)) == 1);
  CHECK(ExifOrientation("MM\0\x2a\xff\xff\xff\xff") == 1);
}

}  // namespace triptych::media
