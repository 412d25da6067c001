// libpng sees only the chunks that pixels need: compressed texts and colour profiles, the usual
// bombs, never reach it. The jumps of its errors stay inside ReadRows and ReadImage, which own
// nothing with a destructor.

#include <png.h>

#include <algorithm>
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
  bool has_alpha = false;
  while (reader.left() > 0) {
    const size_t begin = kPngSignature.size() + reader.position();
    const uint32_t length = reader.Big(4);
    const absl::string_view type = reader.Take(4);
    const absl::string_view body = reader.Take(length);
    reader.Take(4);
    if (!reader.ok()) break;
    if (type == "IHDR" && body.size() > 9) has_alpha = (body[9] & 4) != 0;
    const bool is_critical = (type[0] & 0x20) == 0;
    // Where every pixel has an alpha, another transparency says nothing.
    if (is_critical || (type == "tRNS" && !has_alpha)) {
      kept.append(bytes.data() + begin, size_t{length} + 12);
    }
    if (type == "IEND") break;
  }
  return kept;
}

// What one decode reads and how far it came.
struct Job {
  const char* bytes;
  size_t left;
  int width, height;  // as stored
  // Without interlace: where a row goes, who takes it, and which is being read.
  uint8_t* buffer = nullptr;
  void (*take)(void* to, const uint8_t* rgba) = nullptr;
  void* to = nullptr;
  int row = 0;
  bool row_is_there = false;
};

void ReadInput(png_structp png, png_bytep out, size_t size) {
  auto* job = static_cast<Job*>(png_get_io_ptr(png));
  if (size > job->left) png_error(png, "end");
  std::memcpy(out, job->bytes, size);
  job->bytes += size;
  job->left -= size;
}

[[noreturn]] void OnError(png_structp png, png_const_charp) { png_longjmp(png, 1); }
// What libpng only warns of leaves every pixel as it was written: broken checksums of pixels and
// missing ones are errors.
void OnWarning(png_structp, png_const_charp) {}

// Checksums, block and chunk headers, IEND, and what the last read has not taken.
constexpr size_t kPngTail = 16 << 10;

// Behind the last row libpng would read on to the end of the compressed data, which may be
// gigabytes of nothing. What is left before that row can be no more than the row itself, badly
// compressed, and the file's end.
void CheckRest(png_structp png, const Job& job) {
  const size_t rest = size_t{9} * static_cast<size_t>(job.width) + kPngTail;
  if (job.left > rest) png_error(png, "rest");
}

// Called with each row once it is decoded, before libpng looks at what follows it.
void OnRow(png_structp png, png_row_infop, png_bytep) {
  static_cast<Job*>(png_get_io_ptr(png))->row_is_there = true;
}

// Reads the header and asks for rows of [width] RGBA. The number of passes over them.
int Prepare(png_structp png, png_infop info, Job* job) {
  png_set_user_limits(png, static_cast<png_uint_32>(job->width),
                      static_cast<png_uint_32>(job->height));
  png_set_benign_errors(png, 1);
  // Some writers declare a smaller window than they used.
  png_set_option(png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
  png_set_read_fn(png, job, ReadInput);
  png_read_info(png, info);
  if (png_get_image_width(png, info) != static_cast<png_uint_32>(job->width) ||
      png_get_image_height(png, info) != static_cast<png_uint_32>(job->height)) {
    png_error(png, "size");
  }
  png_set_expand(png);  // palette and low depths to 8 bits, tRNS to alpha
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xff, PNG_FILLER_AFTER);
  const int passes = png_set_interlace_handling(png);
  png_set_read_user_transform_fn(png, OnRow);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != size_t{4} * static_cast<size_t>(job->width)) {
    png_error(png, "rows");
  }
  return passes;
}

// Out of line: what it keeps in registers may not survive a jump.
[[gnu::noinline]] void ReadAll(png_structp png, png_infop info, Job* job) {
  Prepare(png, info, job);
  for (; job->row < job->height; ++job->row) {
    job->row_is_there = false;
    if (job->row + 1 == job->height) CheckRest(png, *job);
    png_read_row(png, job->buffer, nullptr);
    job->take(job->to, job->buffer);
  }
}

// C style. Hands over one row after another; what breaks behind the last of them breaks no pixel.
bool ReadRows(Job* job) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, OnError, OnWarning);
  if (png == nullptr) return false;
  png_infop info = png_create_info_struct(png);
  if (info == nullptr || setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    if (job->row + 1 != job->height || !job->row_is_there) return false;
    job->take(job->to, job->buffer);
    return true;
  }
  ReadAll(png, info, job);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

// C style. `rows` are [height] pointers to width * 4 bytes.
bool ReadImage(Job* job, png_bytepp rows) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, OnError, OnWarning);
  if (png == nullptr) return false;
  png_infop info = png_create_info_struct(png);
  if (info == nullptr || setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  const int passes = Prepare(png, info, job);
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < job->height; ++y) {
      if (pass + 1 == passes && y + 1 == job->height) CheckRest(png, *job);
      png_read_row(png, rows[y], nullptr);
    }
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

// Rows to a picture whose sides are divided: each of its pixels is the mean of those it stands for.
class Reducer {
 public:
  Reducer(int width, int height, int reduction, base::Image* image)
      : width_(width), height_(height), reduction_(reduction), image_(image) {
    sums_.resize(size_t{3} * image->width);
  }

  void Take(const uint8_t* rgba) {
    for (int x = 0; x < width_; ++x, rgba += 4) {
      uint32_t* sum = &sums_[size_t{3} * (x / reduction_)];
      for (int c = 0; c < 3; ++c) sum[c] += OnWhite(rgba[c], rgba[3]);
    }
    ++y_;
    if (y_ % reduction_ == 0 || y_ == height_) Finish();
  }

 private:
  void Finish() {
    const int out_y = (y_ - 1) / reduction_;
    const int rows = y_ - out_y * reduction_;
    uint8_t* out = image_->pixels.data() + size_t{3} * out_y * image_->width;
    for (int x = 0; x < image_->width; ++x) {
      const int columns = std::min(reduction_, width_ - x * reduction_);
      const auto count = static_cast<uint32_t>(rows * columns);
      for (int c = 0; c < 3; ++c, ++out) {
        uint32_t& sum = sums_[size_t{3} * x + c];
        *out = static_cast<uint8_t>((sum + count / 2) / count);
        sum = 0;
      }
    }
  }

  const int width_, height_, reduction_;
  base::Image* const image_;
  std::vector<uint32_t> sums_;
  int y_ = 0;
};

}  // namespace

bool DecodePng(absl::string_view bytes, int reduction, base::Image* image) {
  const absl::StatusOr<Probe> stored = ProbePng(bytes);
  if (!stored.ok() || Reduced(stored->width, reduction) != image->width ||
      Reduced(stored->height, reduction) != image->height) {
    return false;
  }
  const std::string chunks = PixelChunks(bytes);
  Job job{chunks.data(), chunks.size(), stored->width, stored->height};
  const auto width = static_cast<size_t>(job.width), height = static_cast<size_t>(job.height);
  Reducer reducer(job.width, job.height, reduction, image);
  if (!stored->needs_whole) {
    std::vector<uint8_t> row(4 * width);
    job.buffer = row.data();
    job.take = [](void* to, const uint8_t* rgba) { static_cast<Reducer*>(to)->Take(rgba); };
    job.to = &reducer;
    return ReadRows(&job);
  }
  std::vector<uint8_t> rgba(4 * width * height);
  std::vector<png_bytep> rows(height);
  for (size_t y = 0; y < height; ++y) rows[y] = rgba.data() + 4 * width * y;
  if (!ReadImage(&job, rows.data())) return false;
  for (const uint8_t* row : rows) reducer.Take(row);
  return true;
}

}  // namespace triptych::media
