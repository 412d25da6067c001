#include <webp/decode.h>

#include <vector>

#include "media/decoders.h"

namespace triptych::media {
namespace {

bool DecodeOpaque(const uint8_t* bytes, size_t size, base::Image* image) {
  return WebPDecodeRGBInto(bytes, size, image->pixels.data(), image->pixels.size(),
                           3 * image->width) != nullptr;
}

bool DecodeOnWhite(const uint8_t* bytes, size_t size, base::Image* image) {
  std::vector<uint8_t> rgba(image->pixels.size() / 3 * 4);
  if (WebPDecodeRGBAInto(bytes, size, rgba.data(), rgba.size(), 4 * image->width) == nullptr) {
    return false;
  }
  for (size_t i = 0; i < rgba.size() / 4; ++i) {
    for (size_t c = 0; c < 3; ++c)
      image->pixels[3 * i + c] = OnWhite(rgba[4 * i + c], rgba[4 * i + 3]);
  }
  return true;
}

}  // namespace

bool DecodeWebp(absl::string_view bytes, base::Image* image) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK || features.has_animation ||
      features.width != image->width || features.height != image->height) {
    return false;
  }
  return features.has_alpha ? DecodeOnWhite(data, bytes.size(), image)
                            : DecodeOpaque(data, bytes.size(), image);
}

}  // namespace triptych::media
