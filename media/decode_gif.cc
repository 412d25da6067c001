// The first picture of a GIF file on its screen (GIF89a specification): a reader of our own, a
// hundred lines against one more library in the sandbox.

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "media/byte_reader.h"
#include "media/decoders.h"

namespace triptych::media {
namespace {

using Color = std::array<uint8_t, 3>;
using Palette = std::vector<Color>;

Palette ReadPalette(ByteReader* reader, uint32_t packed) {
  Palette palette(256);
  const uint32_t colors = 2u << (packed & 7);
  for (uint32_t i = 0; i < colors; ++i) {
    for (uint8_t& channel : palette[i]) channel = static_cast<uint8_t>(reader->Big(1));
  }
  return palette;
}

// Sub-blocks up to the empty one, joined.
std::string ReadBlocks(ByteReader* reader) {
  std::string joined;
  while (const uint32_t size = reader->Big(1)) {
    const absl::string_view block = reader->Take(size);
    joined.append(block.data(), block.size());
    if (!reader->ok()) break;
  }
  return joined;
}

// The variable-length LZW of appendix F. False when the code breaks or ends before `count` indices.
class Lzw {
 public:
  explicit Lzw(int least_bits) : clear_(1 << least_bits), least_bits_(least_bits) {
    prefix_.resize(kMost);
    suffix_.resize(kMost);
    Reset();
  }

  bool Decode(absl::string_view coded, size_t count, std::vector<uint8_t>* out) {
    out->reserve(count);
    int previous = -1;
    while (out->size() < count) {
      const std::optional<int> code = Next(coded);
      if (!code || *code == clear_ + 1) return false;
      if (*code == clear_) {
        Reset();
        previous = -1;
        continue;
      }
      if (*code > next_ || (*code == next_ && previous < 0)) return false;
      // The one code that may not be known yet: the previous string and its own first byte.
      const int known = *code == next_ ? previous : *code;
      const size_t start = out->size();
      Append(known, out);
      const uint8_t first = (*out)[start];
      if (*code == next_) out->push_back(first);
      if (previous >= 0 && next_ < kMost) {
        prefix_[next_] = static_cast<int16_t>(previous);
        suffix_[next_] = first;
        if (++next_ == 1 << bits_ && bits_ < kMostBits) ++bits_;
      }
      previous = *code;
    }
    out->resize(count);
    return true;
  }

 private:
  static constexpr int kMostBits = 12, kMost = 1 << kMostBits;

  void Reset() {
    bits_ = least_bits_ + 1;
    next_ = clear_ + 2;
  }

  std::optional<int> Next(absl::string_view coded) {
    while (held_bits_ < bits_) {
      if (at_ == coded.size()) return std::nullopt;
      held_ |= uint32_t{static_cast<unsigned char>(coded[at_++])} << held_bits_;
      held_bits_ += 8;
    }
    const int code = static_cast<int>(held_ & ((1u << bits_) - 1));
    held_ >>= bits_;
    held_bits_ -= bits_;
    return code;
  }

  void Append(int code, std::vector<uint8_t>* out) {
    const size_t start = out->size();
    for (; code >= clear_ + 2; code = prefix_[code]) out->push_back(suffix_[code]);
    out->push_back(static_cast<uint8_t>(code));
    std::reverse(out->begin() + static_cast<std::ptrdiff_t>(start), out->end());
  }

  const int clear_, least_bits_;
  int bits_ = 0, next_ = 0;
  std::vector<int16_t> prefix_;
  std::vector<uint8_t> suffix_;
  size_t at_ = 0;
  uint32_t held_ = 0;
  int held_bits_ = 0;
};

// Where row `y` of the coded order stands: all eighths, then those between them, and so on.
std::vector<int> RowOrder(int height, bool interlaced) {
  std::vector<int> order;
  if (!interlaced) {
    for (int y = 0; y < height; ++y) order.push_back(y);
    return order;
  }
  constexpr std::pair<int, int> kPasses[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};
  for (const auto& [first, step] : kPasses) {
    for (int y = first; y < height; y += step) order.push_back(y);
  }
  return order;
}

class Reader {
 public:
  Reader(absl::string_view bytes, base::Image* image) : reader_(bytes), image_(image) {}

  bool Run() {
    reader_.Take(10);
    const uint32_t packed = reader_.Big(1);
    reader_.Take(2);
    if ((packed & 0x80) != 0) palette_ = ReadPalette(&reader_, packed);
    while (reader_.ok()) {
      switch (reader_.Big(1)) {
        case 0x21:
          Extension();
          break;
        case 0x2c:
          return Picture();
        default:
          return false;
      }
    }
    return false;
  }

 private:
  void Extension() {
    constexpr uint32_t kControl = 0xf9;
    const uint32_t label = reader_.Big(1);
    const std::string blocks = ReadBlocks(&reader_);
    if (label == kControl && blocks.size() >= 4 && (blocks[0] & 1) != 0) {
      transparent_ = static_cast<unsigned char>(blocks[3]);
    }
  }

  bool Picture() {
    const int left = static_cast<int>(reader_.Little(2)), top = static_cast<int>(reader_.Little(2));
    const int width = static_cast<int>(reader_.Little(2));
    const int height = static_cast<int>(reader_.Little(2));
    const uint32_t packed = reader_.Big(1);
    if ((packed & 0x80) != 0) palette_ = ReadPalette(&reader_, packed);
    const int least_bits = static_cast<int>(reader_.Big(1));
    if (!reader_.ok() || width == 0 || height == 0 || left + width > image_->width ||
        top + height > image_->height || least_bits < 1 || least_bits > 8) {
      return false;
    }
    if (palette_.empty()) palette_ = Gray();
    std::vector<uint8_t> indices;
    const std::string coded = ReadBlocks(&reader_);
    const auto count = static_cast<size_t>(width) * static_cast<size_t>(height);
    if (!Lzw(least_bits).Decode(coded, count, &indices)) return false;
    // What the picture leaves of the screen is see-through, or else the palette's first colour.
    Fill(transparent_.value_or(0));
    const std::vector<int> order = RowOrder(height, (packed & 0x40) != 0);
    for (int row = 0; row < height; ++row) {
      uint8_t* out = image_->pixels.data() +
                     size_t{3} * (static_cast<size_t>(top + order[row]) * image_->width + left);
      const uint8_t* in = indices.data() + static_cast<size_t>(row) * width;
      for (int x = 0; x < width; ++x, out += 3) Put(in[x], out);
    }
    return true;
  }

  static Palette Gray() {
    Palette palette(256);
    for (size_t i = 0; i < 256; ++i) palette[i].fill(static_cast<uint8_t>(i));
    return palette;
  }

  void Put(int index, uint8_t* out) const {
    const Color color = transparent_ == index ? Color{255, 255, 255} : palette_[index];
    std::copy(color.begin(), color.end(), out);
  }

  void Fill(int index) {
    for (size_t at = 0; at < image_->pixels.size(); at += 3) Put(index, &image_->pixels[at]);
  }

  ByteReader reader_;
  base::Image* const image_;
  Palette palette_;
  std::optional<int> transparent_;
};

}  // namespace

bool DecodeGif(absl::string_view bytes, base::Image* image) { return Reader(bytes, image).Run(); }

}  // namespace triptych::media
