#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <vector>

#include "media/decoders.h"

namespace triptych::media {
namespace {

bool DecodeOpaque(const uint8_t* bytes, size_t size, base::Image* image) {
  return WebPDecodeRGBInto(bytes, size, image->pixels.data(), image->pixels.size(),
                           3 * image->width) != nullptr;
}

// `rgba` is [height, width, 4].
void PutOnWhite(const uint8_t* rgba, base::Image* image) {
  for (size_t i = 0; i < image->pixels.size() / 3; ++i) {
    for (size_t c = 0; c < 3; ++c)
      image->pixels[3 * i + c] = OnWhite(rgba[4 * i + c], rgba[4 * i + 3]);
  }
}

bool DecodeOnWhite(const uint8_t* bytes, size_t size, base::Image* image) {
  std::vector<uint8_t> rgba(image->pixels.size() / 3 * 4);
  if (WebPDecodeRGBAInto(bytes, size, rgba.data(), rgba.size(), 4 * image->width) == nullptr) {
    return false;
  }
  PutOnWhite(rgba.data(), image);
  return true;
}

// The first frame on its canvas, which is see-through where the frame does not reach.
bool DecodeFirstFrame(absl::string_view bytes, base::Image* image) {
  WebPAnimDecoderOptions options;
  if (!WebPAnimDecoderOptionsInit(&options)) return false;
  options.color_mode = MODE_RGBA;
  const WebPData data{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(
      WebPAnimDecoderNew(&data, &options), WebPAnimDecoderDelete);
  WebPAnimInfo info;
  uint8_t* rgba = nullptr;
  int timestamp = 0;
  if (decoder == nullptr || !WebPAnimDecoderGetInfo(decoder.get(), &info) ||
      static_cast<int>(info.canvas_width) != image->width ||
      static_cast<int>(info.canvas_height) != image->height ||
      !WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp)) {
    return false;
  }
  PutOnWhite(rgba, image);
  return true;
}

}  // namespace

bool DecodeWebp(absl::string_view bytes, base::Image* image) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK ||
      features.width != image->width || features.height != image->height) {
    return false;
  }
  if (features.has_animation) return DecodeFirstFrame(bytes, image);
  return features.has_alpha ? DecodeOnWhite(data, bytes.size(), image)
                            : DecodeOpaque(data, bytes.size(), image);
}

}  // namespace triptych::media
