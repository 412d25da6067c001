// Walks the markers of a JPEG file (ITU T.81, annex B).

#include "base/status.h"
#include "media/byte_reader.h"
#include "media/exif.h"
#include "media/formats.h"

namespace triptych::media {
namespace {

constexpr uint32_t kProgressive = 0xc2, kEoi = 0xd9, kSos = 0xda, kApp1 = 0xe1;

// Baseline, extended sequential and progressive, Huffman coded: what decoders everywhere read.
bool IsSupportedFrame(uint32_t marker) { return marker >= 0xc0 && marker <= 0xc2; }

// Any SOF: C0 to CF without DHT, JPG and DAC.
bool IsFrame(uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// Markers without a segment: TEM, RSTn, SOI.
bool StandsAlone(uint32_t marker) { return marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8); }

class JpegWalk {
 public:
  JpegWalk(absl::string_view bytes, const Limits& limits)
      : bytes_(bytes), reader_(bytes), limits_(limits) {}

  absl::StatusOr<Probe> Run() {
    reader_.Take(2);  // SOI
    while (true) {
      const uint32_t marker = NextMarker();
      if (!reader_.ok()) return ImageMalformed();
      if (marker == kEoi) break;
      if (!StandsAlone(marker)) RETURN_IF_ERROR(Segment(marker));
    }
    if (probe_.width == 0 || scans_ == 0) return ImageMalformed();
    probe_.passes = probe_.needs_whole ? scans_ : 1;
    return probe_;
  }

 private:
  uint32_t NextMarker() {
    // Stray bytes between segments, which cameras and scanners leave, are passed over as every
    // decoder does; so are fill bytes, and zeros behind them.
    uint32_t marker = 0;
    while (marker == 0 && reader_.ok()) {
      const size_t at = bytes_.find('\xff', reader_.position());
      if (at == absl::string_view::npos) reader_.Take(reader_.left() + 1);
      reader_.Seek(at == absl::string_view::npos ? bytes_.size() : at);
      marker = 0xff;
      while (marker == 0xff && reader_.ok()) marker = reader_.Big(1);
    }
    return marker;
  }

  absl::Status Segment(uint32_t marker) {
    const uint32_t length = reader_.Big(2);
    if (length < 2) return ImageMalformed();
    const absl::string_view body = reader_.Take(length - 2);
    if (!reader_.ok()) return ImageMalformed();
    if (IsFrame(marker)) return Frame(marker, body);
    if (marker == kApp1 && body.substr(0, 6) == absl::string_view("Exif\0\0", 6) && !has_exif_) {
      has_exif_ = true;
      probe_.orientation = ExifOrientation(body.substr(6));
    }
    if (marker == kSos) return Scan();
    return absl::OkStatus();
  }

  absl::Status Frame(uint32_t marker, absl::string_view body) {
    if (!IsSupportedFrame(marker)) return UnsupportedImageFormat();
    ByteReader frame(body);
    const uint32_t precision = frame.Big(1), height = frame.Big(2), width = frame.Big(2);
    const uint32_t components = frame.Big(1);
    if (!frame.ok() || width == 0 || height == 0 || probe_.width > 0) return ImageMalformed();
    if (precision != 8 || (components != 1 && components != 3 && components != 4)) {
      return UnsupportedImageFormat();
    }
    probe_.needs_whole = marker == kProgressive;
    probe_.width = static_cast<int>(width);
    probe_.height = static_cast<int>(height);
    return absl::OkStatus();
  }

  // Skips the coded bytes up to the next marker that is no restart and no stuffed zero.
  absl::Status Scan() {
    if (++scans_ > limits_.max_scans) return ImageTooLarge();
    size_t at = reader_.position();
    while (true) {
      at = bytes_.find('\xff', at);
      if (at == absl::string_view::npos || at + 1 >= bytes_.size()) return ImageMalformed();
      const auto next = static_cast<unsigned char>(bytes_[at + 1]);
      if (next != 0 && next != 0xff && !(next >= 0xd0 && next <= 0xd7)) break;
      at += next == 0xff ? 1 : 2;
    }
    reader_.Seek(at);
    return absl::OkStatus();
  }

  const absl::string_view bytes_;
  ByteReader reader_;
  const Limits& limits_;
  Probe probe_;
  int scans_ = 0;
  bool has_exif_ = false;
};

}  // namespace

absl::StatusOr<Probe> ProbeJpeg(absl::string_view bytes, const Limits& limits) {
  return JpegWalk(bytes, limits).Run();
}

}  // namespace triptych::media
