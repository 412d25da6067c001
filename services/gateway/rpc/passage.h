#pragma once

// Carries bytes between a client's connection and a server of this process, which has the other end
// of a socket pair: TLS ends here, and HTTP/2 frames are counted on the way in.

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/tls_server.h"
#include "services/gateway/rpc/frame_meter.h"

namespace triptych::services {

// Runs on the strand of its client's socket; owned by its operations. No memory is held for a
// connection at rest.
class Passage : public std::enable_shared_from_this<Passage> {
 public:
  using Tcp = boost::asio::ip::tcp;
  struct Options {
    base::TlsServer* tls = nullptr;     // borrowed; null: plain text
    std::unique_ptr<FrameMeter> meter;  // null: the bytes are not HTTP/2
    std::function<void()> on_offence;   // the meter has ended the connection
  };

  // Borrows `clock`.
  Passage(Tcp::socket client, const base::Clock& clock, Options options);

  // The server's end, connected and non-blocking, is the caller's. RESOURCE_EXHAUSTED, or
  // UNAVAILABLE when the client is gone already. Once, before Run.
  absl::StatusOr<int> Open();
  // `place` is kept as long as the connection.
  void Run(std::shared_ptr<void> place);

  // Of neither side a byte has come since. Any thread.
  base::TimePoint silent_since() const {
    return base::TimePoint(base::Duration(last_byte_.load(std::memory_order_relaxed)));
  }
  // Closes it. Any thread.
  void GiveWay();

 private:
  using Error = boost::system::error_code;
  enum Side { kClient, kServer };
  // One direction.
  struct Lane {
    Side from, to;
    std::string rest;  // read, and not yet taken
  };
  enum class Wait { kRead, kWrite };

  void Touch();
  void Move(Lane* lane);
  void WaitThenMove(Side side, Wait wait, Lane* lane);
  ssize_t Read(Side side, char* bytes, size_t size);
  ssize_t Write(Side side, const char* bytes, size_t size);
  // What the operation of `side` that said EAGAIN waits for.
  Wait WaitFor(Side side, Wait plain) const;
  bool Admits(absl::string_view bytes);
  void OnEnd(const Lane& lane);
  void CloseIn(base::Duration from_now);
  void Close();

  Tcp::socket client_;
  boost::asio::local::stream_protocol::socket server_;
  boost::asio::steady_timer timer_;
  const base::Clock& clock_;
  Options options_;
  std::unique_ptr<base::TlsConnection> tls_;
  std::atomic<base::Duration::rep> last_byte_;
  Lane in_{kClient, kServer, {}}, out_{kServer, kClient, {}};
  bool one_way_ = false;  // one side has ended
  std::shared_ptr<void> place_;
};

}  // namespace triptych::services
