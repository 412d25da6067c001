// libjpeg reports errors by a callback that may not return. The jumps stay inside DecodeRows, which
// owns nothing with a destructor.

#include <csetjmp>
#include <cstddef>
#include <cstdio>

// clang-format off
// It needs cstdio and does not include it.
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "media/decoders.h"
#include "media/limits.h"

namespace triptych::media {
namespace {

// `base` is first, so that libjpeg's pointer to it is a pointer to this.
struct ErrorTrap {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};

[[noreturn]] void Escape(j_common_ptr info) {
  std::longjmp(reinterpret_cast<ErrorTrap*>(info->err)->escape, 1);
}

// What a file may say wrongly, or too much of, without a pixel being missing or guessed.
bool IsHarmless(int warning) {
  switch (warning) {
    case JWRN_EXTRANEOUS_DATA:  // stray bytes before a marker
    case JWRN_JFIF_MAJOR:       // a version of JFIF that nobody knows
    case JWRN_ADOBE_XFORM:      // a colour transform that nobody knows
    case JWRN_NOT_SEQUENTIAL:   // wrong parameters of a sequential scan
    case JWRN_TOO_MUCH_DATA:    // more scan lines than there are
      return true;
    default:
      return false;
  }
}

// Level -1 is a warning: the data are corrupt.
void OnMessage(j_common_ptr info, int level) {
  if (level < 0 && !IsHarmless(info->err->msg_code)) Escape(info);
}

void Silent(j_common_ptr) {}

// Adobe's convention, which all writers follow: CMYK is stored inverted.
void CmykRow(const uint8_t* in, int width, uint8_t* out) {
  for (int x = 0; x < width; ++x, in += 4, out += 3) {
    for (int c = 0; c < 3; ++c) {
      const uint32_t product = uint32_t{in[c]} * in[3] + 128;
      out[c] = static_cast<uint8_t>((product + (product >> 8)) >> 8);
    }
  }
}

// C style. Plain values only, because a jump skips destructors.
bool DecodeRows(absl::string_view bytes, int eighths, base::Image* image) {
  uint8_t* const pixels = image->pixels.data();
  const int width = image->width, height = image->height;
  jpeg_decompress_struct info;
  ErrorTrap trap;
  info.err = jpeg_std_error(&trap.base);
  trap.base.error_exit = Escape;
  trap.base.emit_message = OnMessage;
  trap.base.output_message = Silent;
  if (setjmp(trap.escape) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  const bool is_cmyk = info.num_components == 4;
  info.scale_num = static_cast<unsigned>(eighths);
  info.scale_denom = kWholeScale;
  info.out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  if (info.output_width != static_cast<JDIMENSION>(width) ||
      info.output_height != static_cast<JDIMENSION>(height) ||
      info.output_components != (is_cmyk ? 4 : 3)) {
    Escape(reinterpret_cast<j_common_ptr>(&info));
  }
  // From libjpeg's own pool, which jpeg_destroy_decompress frees.
  JSAMPARRAY row = (*info.mem->alloc_sarray)(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE,
                                             static_cast<JDIMENSION>(width) * 4, 1);
  while (info.output_scanline < info.output_height) {
    uint8_t* out = pixels + size_t{3} * static_cast<size_t>(width) * info.output_scanline;
    JSAMPROW target = is_cmyk ? row[0] : out;
    jpeg_read_scanlines(&info, &target, 1);
    if (is_cmyk) CmykRow(row[0], width, out);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

}  // namespace

bool DecodeJpeg(absl::string_view bytes, int eighths, base::Image* image) {
  return DecodeRows(bytes, eighths, image);
}

}  // namespace triptych::media
