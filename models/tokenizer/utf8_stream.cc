#include "models/tokenizer/utf8_stream.h"

namespace triptych::models {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

// What a lead byte demands: how many continuation bytes, and the range of the first. Ranges are
// narrower where the character would be overlong, a surrogate or above U+10FFFF (table 3-7).
struct Lead {
  int continuations = 0;  // 0: not a lead byte
  unsigned char low = 0x80, high = 0xbf;
};

Lead LeadOf(unsigned char byte) {
  if (byte >= 0xc2 && byte <= 0xdf) return {1};
  if (byte == 0xe0) return {2, 0xa0, 0xbf};
  if (byte == 0xed) return {2, 0x80, 0x9f};
  if (byte >= 0xe1 && byte <= 0xef) return {2};
  if (byte == 0xf0) return {3, 0x90, 0xbf};
  if (byte >= 0xf1 && byte <= 0xf3) return {3};
  if (byte == 0xf4) return {3, 0x80, 0x8f};
  return {};
}

}  // namespace

std::string Utf8Stream::Push(absl::string_view bytes) {
  std::string out;
  out.reserve(pending_.size() + bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (missing_ > 0) {
      if (byte >= low_ && byte <= high_) {
        pending_ += c;
        low_ = 0x80;
        high_ = 0xbf;
        if (--missing_ == 0) {
          out += pending_;
          pending_.clear();
        }
        continue;
      }
      out += Finish();  // the byte begins anew
    }
    if (byte < 0x80) {
      out += c;
      continue;
    }
    const Lead lead = LeadOf(byte);
    if (lead.continuations == 0) {
      out += kReplacement;
      continue;
    }
    pending_ = c;
    missing_ = lead.continuations;
    low_ = lead.low;
    high_ = lead.high;
  }
  return out;
}

std::string Utf8Stream::Finish() {
  const bool cut = missing_ > 0;
  pending_.clear();
  missing_ = 0;
  return cut ? kReplacement : "";
}

}  // namespace triptych::models
