#include "services/gateway/rpc/passage.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <utility>

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Local = asio::local::stream_protocol;

// From the connection to the end of HTTP/2's preface.
constexpr base::Duration kIntroduction = std::chrono::seconds(10);
// From the server's end to the client's.
constexpr base::Duration kFarewell = std::chrono::seconds(5);
constexpr size_t kReadBytes = 64 << 10;
// What a connection may move before others have their turn.
constexpr int kReadsATurn = 4;

// GOAWAY with ENHANCE_YOUR_CALM: of no stream is it said that it was handled.
constexpr char kGoAway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11};

}  // namespace

Passage::Passage(Tcp::socket client, const base::Clock& clock, Options options)
    : client_(std::move(client)),
      server_(client_.get_executor()),
      timer_(client_.get_executor()),
      clock_(clock),
      options_(std::move(options)) {
  Touch();
}

void Passage::Touch() {
  last_byte_.store(clock_.Now().time_since_epoch().count(), std::memory_order_relaxed);
}

absl::StatusOr<int> Passage::Open() {
  Error error;
  client_.non_blocking(true, error);
  if (error) return absl::UnavailableError(error.message());
  if (options_.tls != nullptr) {
    tls_ = options_.tls->Accept(client_.native_handle());
    if (tls_ == nullptr) return absl::ResourceExhaustedError("no memory for TLS");
  }
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return absl::ResourceExhaustedError("no descriptor is free");
  }
  server_.assign(Local(), pair[0], error);
  if (!error) server_.non_blocking(true, error);
  if (!error) return pair[1];
  if (!server_.is_open()) close(pair[0]);
  close(pair[1]);
  return absl::ResourceExhaustedError(error.message());
}

void Passage::Run(std::shared_ptr<void> place) {
  place_ = std::move(place);
  Error ignored;
  client_.set_option(Tcp::no_delay(true), ignored);
  asio::dispatch(client_.get_executor(), [self = shared_from_this()] {
    if (self->options_.meter != nullptr) {
      self->timer_.expires_after(kIntroduction);
      self->timer_.async_wait([self](Error error) {
        if (!error && !self->options_.meter->introduced()) self->Close();
      });
    }
    self->Move(&self->in_);
    self->Move(&self->out_);
  });
}

void Passage::GiveWay() {
  asio::post(client_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

// Moves what can be moved now, then waits for more, or for room.
void Passage::Move(Lane* lane) {
  if (!client_.is_open()) return;
  std::array<char, kReadBytes> bytes;
  for (int turn = 0; turn < kReadsATurn; ++turn) {
    std::string& rest = lane->rest;
    if (!rest.empty()) {
      const ssize_t sent = Write(lane->to, rest.data(), rest.size());
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return Close();
      if (sent > 0) rest.erase(0, static_cast<size_t>(sent));
      if (!rest.empty()) return WaitThenMove(lane->to, WaitFor(lane->to, Wait::kWrite), lane);
      rest = std::string();
    }
    const ssize_t read = Read(lane->from, bytes.data(), bytes.size());
    if (read == 0) return OnEnd(*lane);
    if (read < 0) {
      if (errno != EAGAIN && errno != EINTR) return Close();
      return WaitThenMove(lane->from, WaitFor(lane->from, Wait::kRead), lane);
    }
    Touch();
    const absl::string_view got(bytes.data(), static_cast<size_t>(read));
    if (lane->from == kClient && !Admits(got)) return;
    const ssize_t sent = Write(lane->to, got.data(), got.size());
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return Close();
    const size_t done = sent > 0 ? static_cast<size_t>(sent) : 0;
    if (done < got.size()) rest.assign(got.data() + done, got.size() - done);
  }
  asio::post(client_.get_executor(), [self = shared_from_this(), lane] { self->Move(lane); });
}

void Passage::WaitThenMove(Side side, Wait wait, Lane* lane) {
  const auto what = wait == Wait::kRead ? Tcp::socket::wait_read : Tcp::socket::wait_write;
  auto then = [self = shared_from_this(), lane](Error error) {
    if (!error) self->Move(lane);
  };
  side == kClient ? client_.async_wait(what, std::move(then))
                  : server_.async_wait(what, std::move(then));
}

ssize_t Passage::Read(Side side, char* bytes, size_t size) {
  if (side == kClient && tls_ != nullptr) return tls_->Read(bytes, size);
  return recv(side == kClient ? client_.native_handle() : server_.native_handle(), bytes, size, 0);
}

ssize_t Passage::Write(Side side, const char* bytes, size_t size) {
  if (side == kClient && tls_ != nullptr) return tls_->Write(bytes, size);
  return send(side == kClient ? client_.native_handle() : server_.native_handle(), bytes, size,
              MSG_NOSIGNAL);
}

// Within a handshake TLS may have to write in order to read, and the other way.
Passage::Wait Passage::WaitFor(Side side, Wait plain) const {
  if (side == kServer || tls_ == nullptr) return plain;
  return tls_->wants_write() ? Wait::kWrite : Wait::kRead;
}

bool Passage::Admits(absl::string_view bytes) {
  if (options_.meter == nullptr || options_.meter->Feed(bytes, clock_.Now()) == nullptr) {
    return true;
  }
  options_.on_offence();
  // Where the last frame to it has gone out whole it can read why; else the cut tells.
  if (out_.rest.empty()) Write(kClient, kGoAway, sizeof(kGoAway));
  Close();
  return false;
}

// A client that sends no more may still read, as its server decides; a server that has ended waits
// for nothing.
void Passage::OnEnd(const Lane& lane) {
  if (lane.to == kClient && tls_ != nullptr) tls_->Finish();
  shutdown(lane.to == kClient ? client_.native_handle() : server_.native_handle(), SHUT_WR);
  if (std::exchange(one_way_, true)) return Close();
  if (lane.from == kServer) CloseIn(kFarewell);
}

void Passage::CloseIn(base::Duration from_now) {
  timer_.expires_after(from_now);
  timer_.async_wait([self = shared_from_this()](Error error) {
    if (!error) self->Close();
  });
}

void Passage::Close() {
  Error ignored;
  timer_.cancel();
  client_.close(ignored);
  server_.close(ignored);
}

}  // namespace triptych::services
