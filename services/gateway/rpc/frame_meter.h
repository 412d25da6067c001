#pragma once

// Counts the HTTP/2 frames that a client sends, before gRPC sees them: what costs a server memory
// or time and a client nothing is allowed at a rate that no honest client comes near. Reads frame
// headers alone (RFC 9113, section 4). No socket, no clock of its own.

#include <array>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "services/gateway/request/payload_budget.h"

namespace triptych::services {

// Frames of one kind: `burst` at once, `per_second` in the long run.
struct FrameRate {
  double per_second = 0;
  double burst = 0;
};

// Of one connection; all those of an address together have as much, so that connecting again after
// a cut buys nothing.
struct FrameLimits {
  FrameRate streams{2000, 4000};    // HEADERS: each opens a call
  FrameRate resets{200, 1000};      // RST_STREAM: a call that was begun for nothing
  FrameRate settings{100, 500};     // an honest client answers those that the server sends
  FrameRate pings{100, 500};        // each is answered, to whoever reads nothing
  FrameRate windows{20000, 60000};  // WINDOW_UPDATE: a few a message
  FrameRate others{100, 500};       // PRIORITY, unknown kinds, DATA that holds nothing
  FrameRate connections{100, 1000};
  // Calls whose request has not come whole: gRPC holds about 16 KiB for each, and bounds neither
  // their number in all nor their time.
  int64_t uploads = 256;
  int64_t uploads_of_address = 1024;
  int64_t header_bytes = 64 << 10;  // of one HEADERS with its CONTINUATIONs; gRPC takes 8 kB
  int64_t frame_bytes = 16 << 20;   // the most that HTTP/2 has
};

// What is counted by rate.
enum class FrameKind { kStreams, kResets, kSettings, kPings, kWindows, kOthers, kConnections };

// Token buckets, one a kind.
class FrameBuckets {
 public:
  FrameBuckets(const FrameLimits& limits, base::TimePoint now);
  // False when the bucket of that kind is empty.
  bool Spend(FrameKind kind, base::TimePoint now);
  // Whether they are as new.
  bool full(base::TimePoint now) const;

 private:
  static constexpr size_t kNumKinds = 7;
  struct Bucket {
    FrameRate rate;
    double tokens = 0;
    base::TimePoint filled;
    double TokensAt(base::TimePoint now) const;
  };
  std::array<Bucket, kNumKinds> buckets_;
};

// The same for all connections of an address. An address is forgotten when its buckets are full
// again. Thread-safe; outlives the meters.
class AddressMeter {
 public:
  // Borrows `budget`, in which a request counts while it comes.
  AddressMeter(const FrameLimits& limits, PayloadBudget* budget)
      : limits_(limits), budget_(budget) {}
  const FrameLimits& limits() const { return limits_; }
  PayloadBudget& budget() const { return *budget_; }

  bool Spend(const std::string& address, FrameKind kind, base::TimePoint now);
  // One more call that is being uploaded, or so many fewer.
  bool BeginUpload(const std::string& address, base::TimePoint now);
  void EndUploads(const std::string& address, int64_t count);

  size_t size() const {
    base::MutexLock lock(&mutex_);
    return addresses_.size();
  }

 private:
  struct Address {
    FrameBuckets buckets;
    int64_t uploads = 0;
  };
  // Who has many addresses (of IPv6 only the first half counts) would fill the memory otherwise.
  static constexpr size_t kForgetAbove = 4096;
  static constexpr size_t kMaxAddresses = 1 << 16;
  static constexpr base::Duration kLookEvery = std::chrono::milliseconds(500);  // takes some ms

  Address* Find(const std::string& address, base::TimePoint now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const FrameLimits limits_;
  PayloadBudget* const budget_;
  mutable base::Mutex mutex_;
  absl::flat_hash_map<std::string, Address> addresses_ ABSL_GUARDED_BY(mutex_);
  base::TimePoint next_look_ ABSL_GUARDED_BY(mutex_);
};

// Of one connection.
class FrameMeter {
 public:
  // `of_address` is borrowed.
  FrameMeter(AddressMeter* of_address, std::string address, base::TimePoint now);
  ~FrameMeter();
  FrameMeter(const FrameMeter&) = delete;
  FrameMeter& operator=(const FrameMeter&) = delete;

  // The next bytes of the connection. Null, or what is wrong with them (a constant): then the
  // connection is of no more use.
  const char* Feed(absl::string_view bytes, base::TimePoint now);

  // Whether the preface has come whole.
  bool introduced() const { return preface_seen_ == kPreface.size(); }

 private:
  static constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  static constexpr size_t kHeaderBytes = 9;

  const char* OnFrame(base::TimePoint now);
  const char* OnHeaderBlock(uint8_t type, int64_t length, uint8_t flags, base::TimePoint now);
  const char* OnData(uint32_t stream, int64_t length, uint8_t flags, base::TimePoint now);
  const char* OnStreamBegun(uint32_t stream, uint8_t flags, base::TimePoint now);
  void OnUploadEnd(uint32_t stream);
  const char* Spend(FrameKind kind, base::TimePoint now);

  AddressMeter* const of_address_;
  const std::string address_;
  const FrameLimits& limits_;
  FrameBuckets buckets_;
  absl::flat_hash_map<uint32_t, int64_t> uploads_;  // bytes of streams that have not ended
  int64_t upload_bytes_ = 0;                        // their sum
  PayloadBudget::Reservation held_;                 // for it
  size_t preface_seen_ = 0;
  std::array<uint8_t, kHeaderBytes> header_{};
  size_t header_seen_ = 0;
  int64_t payload_left_ = 0;
  bool in_header_block_ = false;  // more CONTINUATIONs follow
  int64_t block_bytes_ = 0;
};

}  // namespace triptych::services
