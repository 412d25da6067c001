#include "tests/media/picture_writer.h"

// clang-format off
#include <cstdio>
#include <jpeglib.h>
// clang-format on
#include <png.h>
#include <webp/encode.h>
#include <zlib.h>

#include <cstdlib>
#include <cstring>

namespace triptych::testing {

base::Image Gradient(int width, int height) {
  base::Image image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.pixels.push_back(static_cast<uint8_t>(40 + 170 * x / width));
      image.pixels.push_back(static_cast<uint8_t>(40 + 170 * y / height));
      image.pixels.push_back(static_cast<uint8_t>(90));
    }
  }
  return image;
}

std::string WriteJpeg(const base::Image& image, JpegKind kind) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  const int channels = kind == JpegKind::kGray ? 1 : kind == JpegKind::kCmyk ? 4 : 3;
  info.input_components = channels;
  info.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  if (kind == JpegKind::kProgressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(static_cast<size_t>(channels) * image.width);
  const uint8_t* in = image.pixels.data();
  while (info.next_scanline < info.image_height) {
    for (int x = 0; x < image.width; ++x, in += 3) {
      uint8_t* out = row.data() + static_cast<size_t>(x) * channels;
      for (int c = 0; c < channels; ++c) out[c] = c < 3 ? in[c] : 255;  // inverted: no black
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string result(reinterpret_cast<char*>(bytes), size);
  std::free(bytes);
  return result;
}

std::string WritePng(const base::Image& image, const PngKind& kind) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  std::string result;
  png_set_write_fn(
      png, &result,
      [](png_structp p, png_bytep bytes, size_t size) {
        static_cast<std::string*>(png_get_io_ptr(p))->append(reinterpret_cast<char*>(bytes), size);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), kind.depth, kind.color_type,
               kind.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
  const int colors = (kind.color_type & 2) != 0 ? 3 : 1;
  const bool has_alpha = (kind.color_type & 4) != 0;
  const size_t row_size = static_cast<size_t>(image.width) * (colors + has_alpha) * kind.depth / 8;
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    for (int c = 0; c < colors + (has_alpha ? 1 : 0); ++c) {
      const uint8_t value = c < colors ? image.pixels[i + static_cast<size_t>(c)] : kind.alpha;
      bytes.insert(bytes.end(), static_cast<size_t>(kind.depth / 8), value);
    }
  }
  std::vector<png_bytep> rows;
  for (int y = 0; y < image.height; ++y) rows.push_back(bytes.data() + row_size * y);
  png_set_rows(png, info, rows.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return result;
}

std::string WriteWebp(const base::Image& image, uint8_t alpha) {
  std::vector<uint8_t> rgba;
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    rgba.insert(rgba.end(), image.pixels.begin() + static_cast<std::ptrdiff_t>(i),
                image.pixels.begin() + static_cast<std::ptrdiff_t>(i) + 3);
    rgba.push_back(alpha);
  }
  uint8_t* bytes = nullptr;
  const size_t size =
      WebPEncodeLosslessRGBA(rgba.data(), image.width, image.height, 4 * image.width, &bytes);
  std::string result(reinterpret_cast<char*>(bytes), size);
  WebPFree(bytes);
  return result;
}

std::string BigEndian(uint64_t value, int size) {
  std::string bytes;
  for (int i = size - 1; i >= 0; --i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string PngChunk(const std::string& type, const std::string& body) {
  const std::string checked = type + body;
  const auto checksum =
      crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return BigEndian(body.size(), 4) + checked + BigEndian(checksum, 4);
}

std::string ExifBlock(int orientation) {
  return std::string("MM\0\x2a\0\0\0\x08", 8) + BigEndian(1, 2) + BigEndian(0x0112, 2) +
         BigEndian(3, 2) + BigEndian(1, 4) + BigEndian(static_cast<uint64_t>(orientation), 2) +
         BigEndian(0, 2) + BigEndian(0, 4);
}

std::string WithExif(const std::string& jpeg, int orientation) {
  const std::string body = std::string("Exif\0\0", 6) + ExifBlock(orientation);
  return jpeg.substr(0, 2) + "\xff\xe1" + BigEndian(body.size() + 2, 2) + body + jpeg.substr(2);
}

}  // namespace triptych::testing
