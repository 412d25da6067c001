// What is defended: no bytes, however made, crash the probe or the decoders or allocate from a
// declared size; each refusal is one of three fixed texts.

#include <sys/resource.h>
#include <zlib.h>

#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "media/decode.h"
#include "media/formats.h"
#include "media/probe.h"
#include "tests/media/picture_writer.h"
#include "tests/support/heap_peak.h"
#include "tests/support/mutate.h"

namespace triptych::media {
namespace {

using testing::BigEndian;
using testing::Gradient;
using testing::HeapPeak;
using testing::JpegKind;
using testing::Mutate;
using testing::PngChunk;
using testing::PngKind;
using testing::WithExif;
using testing::WriteJpeg;
using testing::WritePng;
using testing::WriteWebp;

// The refusal of probe and decoder, which agree; "ok" when the picture decodes.
std::string Outcome(const std::string& bytes, const Limits& limits = Limits()) {
  const absl::Status probed = ProbeImage(bytes, limits).status();
  const absl::Status decoded = DecodeImage(bytes, limits).status();
  if (!probed.ok()) CHECK(decoded == probed);
  if (decoded.ok()) return "ok";
  CHECK(absl::IsInvalidArgument(decoded));
  const std::string text(decoded.message());
  CHECK((text == kImageTooLarge || text == kImageMalformed || text == kUnsupportedImageFormat));
  return text;
}

std::string Png(uint32_t width, uint32_t height, const std::string& chunks) {
  const std::string header =
      BigEndian(width, 4) + BigEndian(height, 4) + std::string("\x08\x02\0\0\0", 5);
  return std::string(kPngSignature.data(), 8) + PngChunk("IHDR", header) + chunks +
         PngChunk("IEND", "");
}

std::string Deflate(const std::string& plain) {
  uLongf size = compressBound(plain.size());
  std::string packed(size, '\0');
  compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
            reinterpret_cast<const Bytef*>(plain.data()), plain.size(), 9);
  packed.resize(size);
  return packed;
}

std::vector<std::string> SmallPictures() {
  const base::Image image = Gradient(24, 17);
  return {WriteJpeg(image, JpegKind::kBaseline),
          WriteJpeg(image, JpegKind::kProgressive),
          WriteJpeg(image, JpegKind::kCmyk),
          WritePng(image, PngKind()),
          WritePng(image, {.color_type = 6, .depth = 16, .interlaced = true}),
          WriteWebp(image),
          WriteWebp(image, 100)};
}

}  // namespace

// 200 MB of zeros behind the one pixel: libpng alone would inflate all of them.
TEST_CASE("DecodeImage: a PNG is read to its last row and no further", "[media][hostile]") {
  const std::string pixel("\0\x10\x20\x30", 4);
  const std::string bomb = Png(1, 1, PngChunk("IDAT", Deflate(pixel + std::string(200 << 20, 0))));
  REQUIRE(bomb.size() > 100'000);
  rusage before = {}, after = {};
  getrusage(RUSAGE_SELF, &before);
  CHECK(Outcome(bomb) == kImageMalformed);
  getrusage(RUSAGE_SELF, &after);
  const auto micros = [](const rusage& usage) {
    return usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec;
  };
  CHECK(micros(after) - micros(before) < 100'000);
  CHECK(Outcome(Png(1, 1, PngChunk("IDAT", Deflate(pixel)))) == "ok");
  // The largest rows that there are, of noise that no deflate makes smaller.
  for (const bool interlaced : {false, true}) {
    base::Image noise{3000, 9, {}};
    std::mt19937 random(7);
    for (int i = 0; i < 3 * 3000 * 9; ++i) noise.pixels.push_back(static_cast<uint8_t>(random()));
    PngKind kind{.color_type = 6, .depth = 16, .interlaced = interlaced};
    CHECK(Outcome(WritePng(noise, kind)) == "ok");
  }
}

TEST_CASE("DecodeCost: a progressive picture costs more with each scan", "[media][hostile]") {
  const auto cost = [](const std::string& bytes) {
    return DecodeCost(ProbeImage(bytes, Limits()).value());
  };
  const base::Image image = Gradient(160, 100);
  CHECK(cost(WriteJpeg(image, JpegKind::kBaseline)) == 16000);
  CHECK(cost(WriteJpeg(image, JpegKind::kProgressive)) > 2 * 16000);
  CHECK(cost(WritePng(image, PngKind())) == 2 * 16000);
  Probe bomb{.format = Format::kJpeg, .width = 5792, .height = 5792, .passes = 64};
  CHECK(DecodeCost(bomb) > 8 * int64_t{5792} * 5792);
}

TEST_CASE("DecodeImage: a picture cut at any byte is malformed", "[media][hostile]") {
  for (const std::string& whole : SmallPictures()) {
    REQUIRE(Outcome(whole) == "ok");
    for (size_t cut = 0; cut < whole.size(); ++cut) {
      const std::string outcome = Outcome(whole.substr(0, cut));
      INFO("cut at " << cut << " of " << whole.size());
      // A PNG that has lost its last chunk has all its pixels.
      const bool lost_its_end = whole[1] == 'P' && cut >= whole.size() - 12;
      REQUIRE((outcome == kImageMalformed || (cut < 12 && outcome == kUnsupportedImageFormat) ||
               (lost_its_end && outcome == "ok")));
    }
  }
}

TEST_CASE("DecodeImage: flipped bits give a picture or a refusal", "[media][hostile][fuzz]") {
  constexpr unsigned kSeed = 23;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  Limits limits;
  limits.max_pixels = 1 << 20;
  std::set<std::string> seen;
  for (const std::string& whole : SmallPictures()) {
    for (int round = 0; round < 400; ++round) {
      std::string bytes = whole;
      for (unsigned flips = random() % 3 + 1; flips > 0; --flips) {
        bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
      }
      seen.insert(Outcome(bytes, limits));
    }
  }
  CHECK(seen.size() == 4);
}

TEST_CASE("DecodeImage: random bytes behind a true signature are refused",
          "[media][hostile][fuzz]") {
  constexpr unsigned kSeed = 29;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  for (const std::string& start :
       {std::string("\xff\xd8\xff"), std::string(kPngSignature.data(), 8), std::string("RIFF")}) {
    for (int round = 0; round < 500; ++round) {
      std::string bytes = start;
      for (unsigned size = random() % 200; size > 0; --size) bytes += static_cast<char>(random());
      if (start == "RIFF" && bytes.size() > 12) bytes.replace(8, 4, "WEBP");
      REQUIRE(Outcome(bytes) != "ok");
    }
  }
}

TEST_CASE("ProbeImage: harmed headers give a measure within the limits or a refusal, and no memory",
          "[media][hostile][fuzz]") {
  constexpr uint64_t kSeed = 31;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const std::vector<std::string> fragments = {"\xff\xd8",
                                              "\xff\xc0",
                                              "\xff\xc2",
                                              "\xff\xda",
                                              "\xff\xd9",
                                              "\xff\xe1",
                                              "\xff\xff",
                                              "IHDR",
                                              "IDAT",
                                              "IEND",
                                              "VP8X",
                                              "VP8L",
                                              "VP8 ",
                                              "Exif",
                                              "\x7f\xff\xff\xff",
                                              std::string(4, '\0'),
                                              std::string(64, '\xff')};
  const Limits limits;
  std::vector<std::string> pictures = SmallPictures();
  pictures.push_back(WithExif(pictures[0], 6));
  int accepted = 0;
  for (int round = 0; round < 40'000; ++round) {
    CAPTURE(round);
    const std::string bytes =
        Mutate(pictures[static_cast<size_t>(round) % pictures.size()], fragments, &random);
    const HeapPeak peak;
    const absl::StatusOr<Probe> probe = ProbeImage(bytes, limits);
    REQUIRE(peak.bytes() < 4096);
    if (!probe.ok()) {
      const std::string text(probe.status().message());
      REQUIRE(
          (text == kImageTooLarge || text == kImageMalformed || text == kUnsupportedImageFormat));
      continue;
    }
    ++accepted;
    REQUIRE((probe->width > 0 && probe->width <= limits.max_side));
    REQUIRE((probe->height > 0 && probe->height <= limits.max_side));
    REQUIRE(int64_t{1} * probe->width * probe->height <= limits.max_pixels);
    REQUIRE((probe->orientation >= 1 && probe->orientation <= 8));
  }
  CHECK(accepted > 1000);
}

TEST_CASE("ProbeImage: declared sizes beyond the limits are too large", "[media][hostile]") {
  CHECK(Outcome(Png(100000, 100000, PngChunk("IDAT", Deflate("x")))) == kImageTooLarge);
  std::string jpeg = WriteJpeg(Gradient(16, 16), JpegKind::kBaseline);
  const size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xff\xff\xff");
  CHECK(Outcome(jpeg) == kImageTooLarge);
  Limits limits;
  limits.max_bytes = 100;
  CHECK(Outcome(std::string(101, 'x'), limits) == kImageTooLarge);
  limits = Limits();
  limits.max_side = 23;
  for (const std::string& picture : SmallPictures())
    CHECK(Outcome(picture, limits) == kImageTooLarge);
}

TEST_CASE("DecodeImage: refusing bombs takes no memory", "[media][hostile]") {
  const auto peak_kib = [] {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const std::string bomb = Deflate(std::string(20 << 20, '\0'));
  const long before = peak_kib();
  CHECK(Outcome(Png(100000, 100000, PngChunk("IDAT", bomb))) == kImageTooLarge);
  CHECK(Outcome(Png(16384, 2048, PngChunk("zTXt", bomb))) == kImageMalformed);
  CHECK(peak_kib() - before < 64 << 10);
}

TEST_CASE("ProbeImage: a JPEG of a thousand scans is too large", "[media][hostile]") {
  const std::string jpeg = WriteJpeg(Gradient(16, 16), JpegKind::kProgressive);
  const size_t scan = jpeg.find("\xff\xda");
  const size_t next = jpeg.find("\xff\xc4", scan + 2);
  REQUIRE(next != std::string::npos);
  std::string scans;
  for (int i = 0; i < 1000; ++i) scans += jpeg.substr(scan, next - scan);
  CHECK(Outcome(jpeg.substr(0, scan) + scans + jpeg.substr(scan)) == kImageTooLarge);
}

TEST_CASE("DecodeImage: compressed texts and profiles never reach a decompressor",
          "[media][hostile]") {
  const std::string bomb = Deflate(std::string(50 << 20, '\0'));
  const std::string pixels = PngChunk("IDAT", Deflate(std::string(2 * (1 + 2 * 3), '\0')));
  CHECK(Outcome(Png(2, 2, pixels)) == "ok");
  CHECK(Outcome(Png(2, 2, PngChunk("zTXt", std::string("k\0\0", 3) + bomb) + pixels)) == "ok");
  CHECK(Outcome(Png(2, 2, PngChunk("iCCP", std::string("k\0\0", 3) + bomb) + pixels)) == "ok");
  // Far more pixels than declared, where no file has so many bytes to spare.
  CHECK(Outcome(Png(2, 2, PngChunk("IDAT", bomb))) == kImageMalformed);
}

TEST_CASE("ProbeImage: other formats are unsupported, animations without frames malformed",
          "[media][hostile]") {
  for (const std::string& bytes :
       {std::string("<svg xmlns='http://www.w3.org/2000/svg'/>"), std::string("<html></html>"),
        std::string("BM"), std::string(), std::string("RIFF")}) {
    CHECK(Outcome(bytes) == kUnsupportedImageFormat);
  }
  std::string chunk = std::string("VP8X\x0a\0\0\0\x02\0\0\0", 12) + std::string(6, '\0');
  std::string animated = std::string("RIFF") + static_cast<char>(4 + chunk.size()) +
                         std::string("\0\0\0WEBP", 7) + chunk;
  CHECK(Outcome(animated) == kImageMalformed);
  CHECK(Outcome(std::string("GIF89a\1\0\1\0", 10)) == kImageMalformed);
  std::string lossless_jpeg = WriteJpeg(Gradient(8, 8), JpegKind::kBaseline);
  lossless_jpeg[lossless_jpeg.find("\xff\xc0") + 1] = '\xc3';
  CHECK(Outcome(lossless_jpeg) == kUnsupportedImageFormat);
}

TEST_CASE("ProbeImage: empty sides are malformed", "[media][hostile]") {
  const std::string pixels = PngChunk("IDAT", Deflate("x"));
  CHECK(Outcome(Png(0, 5, pixels)) == kImageMalformed);
  CHECK(Outcome(Png(5, 0, pixels)) == kImageMalformed);
  CHECK(Outcome(Png(5, 5, "")) == kImageMalformed);
  CHECK(Outcome(Png(0x80000000, 5, pixels)) == kImageMalformed);
}

}  // namespace triptych::media
