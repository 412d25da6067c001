#pragma once

// What two processes of one host say to each other on a local socket, one message a packet. The
// receiver of bytes connects to their sender, and says who it is; the sender shows its region, then
// announces pieces; the receiver says when it has read one. Nothing blocks.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace triptych::transport {

// A peer is another program: each field is checked by whoever reads it.
struct IpcMessage {
  enum class Kind : uint32_t {
    kHello = 1,   // receiver: sender, receiver, text: the token
    kRegion = 2,  // sender: bytes, text: the handle
    kPiece = 3,   // sender: sequence, offset, bytes; offset -1: a size alone
    kRead = 4,    // receiver: sequence; the piece is not read any more
  };
  static constexpr uint32_t kVersion = 1;

  uint32_t version = kVersion;
  Kind kind = Kind::kHello;
  uint64_t sender = 0, receiver = 0;  // incarnations: of who sends bytes, of who receives them
  uint64_t sequence = 0;
  int64_t offset = 0, bytes = 0;
  uint32_t text_bytes = 0;
  char text[64] = {};

  void set_text(const std::string& value);
  std::string get_text() const;
};

// A connected or listening socket of packets. Move-only. Thread-safe as system calls are.
class IpcSocket {
 public:
  enum class Result { kDone, kLater, kBroken };

  IpcSocket() = default;
  explicit IpcSocket(int fd) : fd_(fd) {}
  IpcSocket(IpcSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  IpcSocket& operator=(IpcSocket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~IpcSocket();

  // `name` is of the abstract namespace: no file, gone with the process. UNAVAILABLE: it is taken,
  // or nobody listens there.
  static absl::StatusOr<IpcSocket> Listen(const std::string& name);
  static absl::StatusOr<IpcSocket> Connect(const std::string& name);
  // Nothing when nobody waits.
  std::optional<IpcSocket> Accept() const;

  // Who runs the process at the other end, as the kernel says.
  std::optional<uid_t> PeerUser() const;
  Result Send(const IpcMessage& message) const;
  Result Receive(IpcMessage* message) const;
  // Whether the other end has closed, or its process has ended; what it sent before may be unread.
  bool HungUp() const;
  // For both ends, at once; the descriptor stays.
  void Shutdown() const;
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace triptych::transport
