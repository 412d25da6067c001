#include "services/gateway/rpc/frame_meter.h"

#include <algorithm>
#include <utility>

namespace triptych::services {
namespace {

// Frame types and flags of RFC 9113, section 6.
constexpr uint8_t kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6;
constexpr uint8_t kWindowUpdate = 8, kContinuation = 9;
constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

}  // namespace

FrameBuckets::FrameBuckets(const FrameLimits& limits, base::TimePoint now) {
  const FrameRate rates[kNumKinds] = {limits.streams,    limits.resets,  limits.settings,
                                      limits.pings,      limits.windows, limits.others,
                                      limits.connections};
  for (size_t i = 0; i < kNumKinds; ++i) buckets_[i] = {rates[i], rates[i].burst, now};
}

double FrameBuckets::Bucket::TokensAt(base::TimePoint now) const {
  return std::min(rate.burst, tokens + rate.per_second * base::ToSeconds(now - filled));
}

bool FrameBuckets::Spend(FrameKind kind, base::TimePoint now) {
  Bucket& bucket = buckets_[static_cast<size_t>(kind)];
  bucket.tokens = bucket.TokensAt(now);
  bucket.filled = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

bool FrameBuckets::full(base::TimePoint now) const {
  return std::all_of(buckets_.begin(), buckets_.end(), [now](const Bucket& bucket) {
    return bucket.TokensAt(now) >= bucket.rate.burst;
  });
}

AddressMeter::Address* AddressMeter::Find(const std::string& address, base::TimePoint now) {
  const auto found = addresses_.find(address);
  if (found != addresses_.end()) return &found->second;
  if (addresses_.size() >= kForgetAbove && now >= next_look_) {
    absl::erase_if(addresses_, [now](const auto& entry) {
      return entry.second.uploads == 0 && entry.second.buckets.full(now);
    });
    next_look_ = now + kLookEvery;
  }
  if (addresses_.size() >= kMaxAddresses) return nullptr;
  return &addresses_.emplace(address, Address{FrameBuckets(limits_, now)}).first->second;
}

bool AddressMeter::Spend(const std::string& address, FrameKind kind, base::TimePoint now) {
  base::MutexLock lock(&mutex_);
  Address* const found = Find(address, now);
  return found != nullptr && found->buckets.Spend(kind, now);
}

bool AddressMeter::BeginUpload(const std::string& address, base::TimePoint now) {
  base::MutexLock lock(&mutex_);
  Address* const found = Find(address, now);
  if (found == nullptr || found->uploads >= limits_.uploads_of_address) return false;
  ++found->uploads;
  return true;
}

void AddressMeter::EndUploads(const std::string& address, int64_t count) {
  if (count == 0) return;
  base::MutexLock lock(&mutex_);
  // Found: an address with uploads is not forgotten.
  addresses_.at(address).uploads -= count;
}

FrameMeter::FrameMeter(AddressMeter* of_address, std::string address, base::TimePoint now)
    : of_address_(of_address),
      address_(std::move(address)),
      limits_(of_address->limits()),
      buckets_(limits_, now),
      held_(of_address->budget().Open(address_)) {}

FrameMeter::~FrameMeter() {
  of_address_->EndUploads(address_, static_cast<int64_t>(uploads_.size()));
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
  const uint32_t stream = (uint32_t{header_[5]} & 0x7f) << 24 | uint32_t{header_[6]} << 16 |
                          uint32_t{header_[7]} << 8 | header_[8];
  if (length > limits_.frame_bytes) return "frame too large";
  payload_left_ = length;
  if (type == kHeaders || type == kContinuation) {
    const char* const wrong = OnHeaderBlock(type, length, flags, now);
    return wrong != nullptr || type != kHeaders ? wrong : OnStreamBegun(stream, flags, now);
  }
  if (in_header_block_) return "header block interrupted";
  switch (type) {
    case kData:
      return OnData(stream, length, flags, now);
    case kReset:
      OnUploadEnd(stream);
      return Spend(FrameKind::kResets, now);
    case kSettings:
      return Spend(FrameKind::kSettings, now);
    case kPing:
      return Spend(FrameKind::kPings, now);
    case kWindowUpdate:
      return Spend(FrameKind::kWindows, now);
    default:
      return Spend(FrameKind::kOthers, now);
  }
}

const char* FrameMeter::OnHeaderBlock(uint8_t type, int64_t length, uint8_t flags,
                                      base::TimePoint now) {
  if ((type == kContinuation) != in_header_block_) return "header block out of order";
  block_bytes_ = (type == kHeaders ? 0 : block_bytes_) + length;
  if (block_bytes_ > limits_.header_bytes) return "header block too large";
  in_header_block_ = (flags & kEndHeaders) == 0;
  // An empty CONTINUATION adds nothing to the sum above.
  return Spend(type == kHeaders ? FrameKind::kStreams : FrameKind::kOthers, now);
}

const char* FrameMeter::OnStreamBegun(uint32_t stream, uint8_t flags, base::TimePoint now) {
  if ((flags & kEndStream) != 0) {
    OnUploadEnd(stream);  // trailers
    return nullptr;
  }
  if (uploads_.contains(stream)) return nullptr;
  if (static_cast<int64_t>(uploads_.size()) >= limits_.uploads ||
      !of_address_->BeginUpload(address_, now)) {
    return "too many calls without their request";
  }
  uploads_.emplace(stream, 0);
  return nullptr;
}

// gRPC keeps a message until it is whole, and charges it to nobody. Then its reader does.
const char* FrameMeter::OnData(uint32_t stream, int64_t length, uint8_t flags,
                               base::TimePoint now) {
  if ((flags & kEndStream) != 0) {
    OnUploadEnd(stream);
    return nullptr;
  }
  if (length == 0) return Spend(FrameKind::kOthers, now);
  const auto upload = uploads_.find(stream);
  if (upload == uploads_.end()) return nullptr;  // of no call: gRPC's to refuse
  upload->second += length;
  upload_bytes_ += length;
  return held_.GrowTo(upload_bytes_) ? nullptr : "too many bytes of calls without their request";
}

void FrameMeter::OnUploadEnd(uint32_t stream) {
  const auto upload = uploads_.find(stream);
  if (upload == uploads_.end()) return;
  upload_bytes_ -= upload->second;
  held_.ShrinkTo(upload_bytes_);
  uploads_.erase(upload);
  of_address_->EndUploads(address_, 1);
}

const char* FrameMeter::Spend(FrameKind kind, base::TimePoint now) {
  if (!buckets_.Spend(kind, now)) return "too many frames of one kind";
  return of_address_->Spend(address_, kind, now) ? nullptr
                                                 : "too many frames of one kind from an address";
}

}  // namespace triptych::services
