#pragma once

// The server's side of TLS on sockets that somebody else waits for, by OpenSSL. No thread and no
// socket of its own; a connection at rest keeps no buffer.

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"

struct ssl_st;
struct ssl_ctx_st;

namespace triptych::base {

// One connection. One thread at a time.
class TlsConnection {
 public:
  explicit TlsConnection(ssl_st* ssl) : ssl_(ssl) {}
  ~TlsConnection();
  TlsConnection(const TlsConnection&) = delete;
  TlsConnection& operator=(const TlsConnection&) = delete;

  // As recv and send of a non-blocking socket: bytes, 0 for the other's end (of its own accord), or
  // -1 with errno; EAGAIN: once wants_write() or else reading is possible, try again with the same
  // bytes. The handshake happens within.
  ssize_t Read(char* bytes, size_t size);
  ssize_t Write(const char* bytes, size_t size);
  bool wants_write() const { return wants_write_; }
  // Says that no more will come; best effort.
  void Finish();

 private:
  ssize_t Result(int result);
  ssl_st* const ssl_;
  bool wants_write_ = false;
};

// Thread-safe.
class TlsServer {
 public:
  struct Files {
    std::string cert;  // PEM: the certificate, then what leads to its authority
    std::string key;
  };
  // TLS 1.2 or newer, and only `protocol` (as ALPN names it) with clients that name any.
  // INVALID_ARGUMENT names the file that does not serve. The files are read again when they have
  // changed; what does not serve then changes nothing. Borrows `clock`.
  static absl::StatusOr<std::unique_ptr<TlsServer>> Load(Files files, std::string protocol,
                                                         const Clock& clock);
  ~TlsServer();

  // For a connected, non-blocking socket, which stays the caller's and outlives the result. Null
  // when the memory is out.
  std::unique_ptr<TlsConnection> Accept(int descriptor);

 private:
  using Context = std::shared_ptr<ssl_ctx_st>;  // shared with the connections that it began
  TlsServer(Files files, std::string protocol, const Clock& clock);
  absl::StatusOr<Context> Read() const;
  int64_t ChangedAt() const;
  void LookAgain() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Files files_;
  const std::string protocol_;  // length and name, as ALPN has it
  const Clock& clock_;
  Mutex mutex_;
  Context context_ ABSL_GUARDED_BY(mutex_);
  int64_t changed_ ABSL_GUARDED_BY(mutex_) = 0;
  TimePoint next_look_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::base
