// libpng sees only the chunks that pixels need: compressed texts and colour profiles, the usual
// bombs, never reach it. The jumps of its errors stay inside DecodeRows, which owns nothing with a
// destructor.

#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "media/byte_reader.h"
#include "media/decoders.h"
#include "media/formats.h"

namespace triptych::media {
namespace {

// Signature, IHDR, PLTE, tRNS, IDAT and IEND of a file whose chunks the probe has walked.
std::string PixelChunks(absl::string_view bytes) {
  std::string kept(kPngSignature.data(), kPngSignature.size());
  kept.reserve(bytes.size());
  ByteReader reader(bytes.substr(kPngSignature.size()));
  while (reader.left() > 0) {
    const size_t begin = kPngSignature.size() + reader.position();
    const uint32_t length = reader.Big(4);
    const absl::string_view type = reader.Take(4);
    reader.Take(size_t{length} + 4);
    if (!reader.ok()) break;
    const bool is_critical = (type[0] & 0x20) == 0;
    if (is_critical || type == "tRNS") kept.append(bytes.data() + begin, size_t{length} + 12);
    if (type == "IEND") break;
  }
  return kept;
}

struct Input {
  const char* bytes;
  size_t left;
};

void ReadInput(png_structp png, png_bytep out, size_t size) {
  auto* input = static_cast<Input*>(png_get_io_ptr(png));
  if (size > input->left) png_error(png, "end");
  std::memcpy(out, input->bytes, size);
  input->bytes += size;
  input->left -= size;
}

[[noreturn]] void OnError(png_structp png, png_const_charp) { png_longjmp(png, 1); }
[[noreturn]] void OnWarning(png_structp png, png_const_charp) { png_longjmp(png, 1); }

// Checksums, block and chunk headers, IEND, and what the last read has not taken.
constexpr size_t kPngTail = 16 << 10;

// C style. `rows` are [height] pointers to width * 4 bytes.
bool DecodeRows(Input input, png_bytepp rows, int width, int height) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, OnError, OnWarning);
  if (png == nullptr) return false;
  png_infop info = png_create_info_struct(png);
  if (info == nullptr || setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_user_limits(png, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height));
  png_set_read_fn(png, &input, ReadInput);
  png_read_info(png, info);
  if (png_get_image_width(png, info) != static_cast<png_uint_32>(width) ||
      png_get_image_height(png, info) != static_cast<png_uint_32>(height)) {
    png_error(png, "size");
  }
  png_set_expand(png);  // palette and low depths to 8 bits, tRNS to alpha
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xff, PNG_FILLER_AFTER);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != size_t{4} * static_cast<size_t>(width)) png_error(png, "rows");
  // Behind the last row libpng would read on to the end of the compressed data, which may be
  // gigabytes of nothing. What is left before that row can be no more than the row itself, badly
  // compressed, and the file's end.
  const size_t rest = size_t{9} * static_cast<size_t>(width) + kPngTail;
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < height; ++y) {
      const bool last = pass + 1 == passes && y + 1 == height;
      if (last && input.left > rest) png_error(png, "rest");
      png_read_row(png, rows[y], nullptr);
    }
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

}  // namespace

bool DecodePng(absl::string_view bytes, base::Image* image) {
  const std::string chunks = PixelChunks(bytes);
  const auto width = static_cast<size_t>(image->width), height = static_cast<size_t>(image->height);
  std::vector<uint8_t> rgba(4 * width * height);
  std::vector<png_bytep> rows(height);
  for (size_t y = 0; y < height; ++y) rows[y] = rgba.data() + 4 * width * y;
  if (!DecodeRows({chunks.data(), chunks.size()}, rows.data(), image->width, image->height)) {
    return false;
  }
  for (size_t i = 0; i < width * height; ++i) {
    for (size_t c = 0; c < 3; ++c)
      image->pixels[3 * i + c] = OnWhite(rgba[4 * i + c], rgba[4 * i + 3]);
  }
  return true;
}

}  // namespace triptych::media
