#include "services/gateway/rpc/frame_meter.h"

#include <algorithm>

namespace triptych::services {
namespace {

// Frame types and flags of RFC 9113, section 6.
constexpr uint8_t kData = 0, kHeaders = 1, kReset = 3, kSettingsFrame = 4, kPing = 6;
constexpr uint8_t kWindowUpdate = 8, kContinuation = 9;
constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

}  // namespace

FrameMeter::FrameMeter(const FrameLimits& limits, base::TimePoint now) : limits_(limits) {
  const FrameRate rates[kNumKinds] = {limits.streams, limits.resets,  limits.settings,
                                      limits.pings,   limits.windows, limits.others};
  for (int i = 0; i < kNumKinds; ++i) buckets_[i] = {rates[i], rates[i].burst, now};
}

const char* FrameMeter::Feed(absl::string_view bytes, base::TimePoint now) {
  while (!bytes.empty()) {
    if (!introduced()) {
      const size_t some = std::min(bytes.size(), kPreface.size() - preface_seen_);
      if (bytes.substr(0, some) != kPreface.substr(preface_seen_, some)) return "no HTTP/2";
      preface_seen_ += some;
      bytes.remove_prefix(some);
    } else if (payload_left_ > 0) {
      const auto some = std::min<int64_t>(payload_left_, static_cast<int64_t>(bytes.size()));
      payload_left_ -= some;
      bytes.remove_prefix(static_cast<size_t>(some));
    } else {
      const size_t some = std::min(bytes.size(), kHeaderBytes - header_seen_);
      std::copy_n(bytes.data(), some, header_.data() + header_seen_);
      header_seen_ += some;
      bytes.remove_prefix(some);
      if (header_seen_ < kHeaderBytes) continue;
      header_seen_ = 0;
      if (const char* wrong = OnFrame(now)) return wrong;
    }
  }
  return nullptr;
}

const char* FrameMeter::OnFrame(base::TimePoint now) {
  const int64_t length = int64_t{header_[0]} << 16 | int64_t{header_[1]} << 8 | header_[2];
  const uint8_t type = header_[3], flags = header_[4];
  if (length > limits_.frame_bytes) return "frame too large";
  payload_left_ = length;
  if (type == kHeaders || type == kContinuation) return OnHeaderBlock(type, length, flags, now);
  if (in_header_block_) return "header block interrupted";
  switch (type) {
    case kData:
      return length == 0 && (flags & kEndStream) == 0 ? Spend(kOthers, now) : nullptr;
    case kReset:
      return Spend(kResets, now);
    case kSettingsFrame:
      return Spend(kSettings, now);
    case kPing:
      return Spend(kPings, now);
    case kWindowUpdate:
      return Spend(kWindows, now);
    default:
      return Spend(kOthers, now);
  }
}

const char* FrameMeter::OnHeaderBlock(uint8_t type, int64_t length, uint8_t flags,
                                      base::TimePoint now) {
  if ((type == kContinuation) != in_header_block_) return "header block out of order";
  block_bytes_ = (type == kHeaders ? 0 : block_bytes_) + length;
  if (block_bytes_ > limits_.header_bytes) return "header block too large";
  in_header_block_ = (flags & kEndHeaders) == 0;
  // An empty CONTINUATION adds nothing to the sum above.
  return Spend(type == kHeaders ? kStreams : kOthers, now);
}

const char* FrameMeter::Spend(Kind kind, base::TimePoint now) {
  Bucket& bucket = buckets_[kind];
  bucket.tokens =
      std::min(bucket.rate.burst,
               bucket.tokens + bucket.rate.per_second * base::ToSeconds(now - bucket.filled));
  bucket.filled = now;
  if (bucket.tokens < 1) return "too many frames of one kind";
  bucket.tokens -= 1;
  return nullptr;
}

}  // namespace triptych::services
