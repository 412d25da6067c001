#pragma once

// Counts the HTTP/2 frames that a client sends, before gRPC sees them: what costs a server memory
// or time and a client nothing is allowed at a rate that no honest client comes near. Reads frame
// headers alone (RFC 9113, section 4). No socket, no clock of its own.

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services {

// Frames of one kind: `burst` at once, `per_second` in the long run.
struct FrameRate {
  double per_second = 0;
  double burst = 0;
};

struct FrameLimits {
  FrameRate streams{2000, 4000};    // HEADERS: each opens a call
  FrameRate resets{200, 1000};      // RST_STREAM: a call that was begun for nothing
  FrameRate settings{100, 500};     // an honest client answers those that the server sends
  FrameRate pings{100, 500};        // each is answered, to whoever reads nothing
  FrameRate windows{20000, 60000};  // WINDOW_UPDATE: a few a message
  FrameRate others{100, 500};       // PRIORITY, unknown kinds, DATA that holds nothing
  int64_t header_bytes = 64 << 10;  // of one HEADERS with its CONTINUATIONs; gRPC takes 8 kB
  int64_t frame_bytes = 16 << 20;   // the most that HTTP/2 has
};

class FrameMeter {
 public:
  explicit FrameMeter(const FrameLimits& limits, base::TimePoint now);

  // The next bytes of the connection. Null, or what is wrong with them (a constant): then the
  // connection is of no more use.
  const char* Feed(absl::string_view bytes, base::TimePoint now);

  // Whether the preface has come whole.
  bool introduced() const { return preface_seen_ == kPreface.size(); }

 private:
  static constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  static constexpr size_t kHeaderBytes = 9;
  enum Kind { kStreams, kResets, kSettings, kPings, kWindows, kOthers, kNumKinds };

  struct Bucket {
    FrameRate rate;
    double tokens = 0;
    base::TimePoint filled;
  };

  const char* OnFrame(base::TimePoint now);
  const char* OnHeaderBlock(uint8_t type, int64_t length, uint8_t flags, base::TimePoint now);
  const char* Spend(Kind kind, base::TimePoint now);

  const FrameLimits limits_;
  std::array<Bucket, kNumKinds> buckets_;
  size_t preface_seen_ = 0;
  std::array<uint8_t, kHeaderBytes> header_{};
  size_t header_seen_ = 0;
  int64_t payload_left_ = 0;
  bool in_header_block_ = false;  // more CONTINUATIONs follow
  int64_t block_bytes_ = 0;
};

}  // namespace triptych::services
