#pragma once

// Reads numbers from untrusted bytes; never beyond their end.

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace triptych::media {

// A cursor over borrowed bytes. Reading past the end gives zeros and makes ok() false for good. One
// thread.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  uint32_t Big(int size) { return Read(size, true); }
  uint32_t Little(int size) { return Read(size, false); }

  // The next `size` bytes; empty when there are fewer.
  absl::string_view Take(size_t size) {
    if (size > left()) {
      ok_ = false;
      return {};
    }
    const absl::string_view taken = bytes_.substr(position_, size);
    position_ += size;
    return taken;
  }

  void Seek(size_t position) {
    ok_ = ok_ && position <= bytes_.size();
    if (ok_) position_ = position;
  }

 private:
  uint32_t Read(int size, bool big_endian) {
    const absl::string_view taken = Take(static_cast<size_t>(size));
    uint32_t value = 0;
    for (size_t i = 0; i < taken.size(); ++i) {
      const size_t at = big_endian ? i : taken.size() - 1 - i;
      value = value << 8 | static_cast<unsigned char>(taken[at]);
    }
    return value;
  }

  absl::string_view bytes_;
  size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace triptych::media
