#include "services/gateway/rpc/http2_gate.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <cerrno>
#include <functional>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "services/gateway/core/connection_table.h"
#include "services/runtime/listener.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;
using Error = boost::system::error_code;

constexpr int kThreads = 2;
constexpr int kBacklog = 4096;
constexpr auto kAcceptPause = std::chrono::milliseconds(50);
// From the connection to the end of HTTP/2's preface.
constexpr base::Duration kIntroduction = std::chrono::seconds(10);
constexpr size_t kReadBytes = 64 << 10;
// What a connection may move before others have their turn.
constexpr int kReadsATurn = 4;

// GOAWAY with ENHANCE_YOUR_CALM: of no stream is it said that it was handled.
constexpr unsigned char kGoAway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11};

// One client's connection and its end of the pair. Runs on one strand; owned by its operations. No
// memory is held for a connection at rest.
class Passage : public std::enable_shared_from_this<Passage> {
 public:
  using OnOffence = std::function<void()>;

  Passage(Tcp::socket client, const FrameLimits& limits, const base::Clock& clock,
          OnOffence on_offence)
      : client_(std::move(client)),
        server_(client_.get_executor()),
        timer_(client_.get_executor()),
        clock_(clock),
        on_offence_(std::move(on_offence)),
        meter_(limits, clock.Now()) {
    Touch();
  }

  // Takes the client's half of the pair; gRPC has the other.
  Error Pair(int descriptor) {
    Error error;
    server_.assign(Local(), descriptor, error);
    if (!error) client_.non_blocking(true, error);
    if (!error) server_.non_blocking(true, error);
    return error;
  }

  void Run(std::shared_ptr<void> place) {
    place_ = std::move(place);
    Error ignored;
    client_.set_option(Tcp::no_delay(true), ignored);
    asio::dispatch(client_.get_executor(), [self = shared_from_this()] {
      self->timer_.expires_after(kIntroduction);
      self->timer_.async_wait([self](Error error) {
        if (!error && !self->meter_.introduced()) self->Close();
      });
      self->Move(&self->client_, &self->server_, &self->to_server_);
      self->Move(&self->server_, &self->client_, &self->to_client_);
    });
  }

  // Of neither side a byte has come since. Any thread.
  base::TimePoint silent_since() const {
    return base::TimePoint(base::Duration(last_byte_.load(std::memory_order_relaxed)));
  }
  void GiveWay() {
    asio::post(client_.get_executor(), [self = shared_from_this()] { self->Close(); });
  }

 private:
  void Touch() {
    last_byte_.store(clock_.Now().time_since_epoch().count(), std::memory_order_relaxed);
  }

  // Moves what can be moved now, then waits for more, or for room.
  template <typename From, typename To>
  void Move(From* from, To* to, std::string* rest) {
    std::array<char, kReadBytes> bytes;
    for (int turn = 0; turn < kReadsATurn; ++turn) {
      if (!rest->empty()) {
        const ssize_t sent = send(to->native_handle(), rest->data(), rest->size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return Close();
        if (sent > 0) rest->erase(0, static_cast<size_t>(sent));
        if (!rest->empty()) return WaitThenMove(to, Tcp::socket::wait_write, from, to, rest);
        *rest = std::string();
      }
      const ssize_t read = recv(from->native_handle(), bytes.data(), bytes.size(), 0);
      if (read == 0) return HalfClose(from, to);
      if (read < 0) {
        if (errno != EAGAIN && errno != EINTR) return Close();
        return WaitThenMove(from, Tcp::socket::wait_read, from, to, rest);
      }
      Touch();
      const absl::string_view got(bytes.data(), static_cast<size_t>(read));
      if (!Admits(*from, got)) return;
      const ssize_t sent = send(to->native_handle(), got.data(), got.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return Close();
      const size_t done = sent > 0 ? static_cast<size_t>(sent) : 0;
      if (done < got.size()) rest->assign(got.data() + done, got.size() - done);
    }
    asio::post(client_.get_executor(),
               [self = shared_from_this(), from, to, rest] { self->Move(from, to, rest); });
  }

  template <typename Socket, typename From, typename To>
  void WaitThenMove(Socket* socket, asio::socket_base::wait_type what, From* from, To* to,
                    std::string* rest) {
    socket->async_wait(what, [self = shared_from_this(), from, to, rest](Error error) {
      if (!error && self->client_.is_open()) self->Move(from, to, rest);
    });
  }

  bool Admits(const Local::socket&, absl::string_view) { return true; }
  bool Admits(const Tcp::socket&, absl::string_view bytes) {
    if (meter_.Feed(bytes, clock_.Now()) == nullptr) return true;
    on_offence_();
    // Where the last frame to it has gone out whole it can read why; else the cut tells.
    if (to_client_.empty()) send(client_.native_handle(), kGoAway, sizeof(kGoAway), MSG_NOSIGNAL);
    Close();
    return false;
  }

  // gRPC takes the end of its input for the end of the connection, and so does a client.
  template <typename From, typename To>
  void HalfClose(From*, To* to) {
    shutdown(to->native_handle(), SHUT_WR);
    if (std::exchange(one_way_, true)) Close();
  }

  void Close() {
    Error ignored;
    timer_.cancel();
    client_.close(ignored);
    server_.close(ignored);
  }

  Tcp::socket client_;
  Local::socket server_;
  asio::steady_timer timer_;
  const base::Clock& clock_;
  const OnOffence on_offence_;
  FrameMeter meter_;
  std::atomic<base::Duration::rep> last_byte_;
  std::string to_server_, to_client_;  // read, and not yet taken
  bool one_way_ = false;               // one side has ended
  std::shared_ptr<void> place_;
};

}  // namespace

class Http2Gate::Impl {
 public:
  Impl(const FrontEnd& front, RpcServer* server, const FrameLimits& limits)
      : front_(front), server_(server), limits_(limits), table_(front.connections) {}
  ~Impl() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::StatusOr<std::string> Listen(const std::string& address) {
    absl::StatusOr<std::string> bound = services::Listen(address, kBacklog, &acceptor_);
    if (!bound.ok()) return bound;
    Accept();
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return bound;
  }

  void StopAccepting() {
    std::promise<void> stopped;
    asio::post(acceptor_.get_executor(), [this, &stopped] {
      Error ignored;
      pause_.cancel();
      acceptor_.close(ignored);
      stopped.set_value();
    });
    stopped.get_future().wait();
  }

  Client ClientOf(const std::string& peer) const {
    base::MutexLock lock(&mutex_);
    const auto found = clients_.find(peer);
    return found == clients_.end() ? ClientAt("", "") : found->second;
  }

 private:
  void Accept() {
    acceptor_.async_accept(asio::make_strand(context_), [this](Error error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
      if (!error) {
        Admit(std::move(socket));
        return Accept();
      }
      // No descriptor is free: at once again would only burn the processor.
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](Error stopped) {
        if (!stopped) Accept();
      });
    });
  }

  void Admit(Tcp::socket socket) {
    Error error;
    const std::string host = socket.remote_endpoint(error).address().to_string();
    Client client = ClientAt(host, absl::StrCat("grpc-", ++last_connection_));
    const auto passage =
        std::make_shared<Passage>(std::move(socket), limits_, front_.core.clock(),
                                  [this] { front_.metrics.cut_connections.Increment(); });
    auto place = table_.Enter(passage, client.tenant);
    if (place == nullptr) return;  // the socket closes with the passage
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return;
    {
      // gRPC names a connection by its descriptor. A number comes again when its connection is
      // over: then it is somebody else's.
      base::MutexLock lock(&mutex_);
      clients_[absl::StrCat("fd:", pair[1])] = std::move(client);
    }
    if (passage->Pair(pair[0])) {
      close(pair[0]);
      close(pair[1]);
      return;
    }
    server_->Serve(pair[1]);
    passage->Run(std::move(place));
  }

  const FrontEnd& front_;
  RpcServer* const server_;
  const FrameLimits limits_;
  ConnectionTable<Passage> table_;
  uint64_t last_connection_ = 0;  // of the accepting handler
  mutable base::Mutex mutex_;
  // By gRPC's name; at most one a descriptor number.
  absl::flat_hash_map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);
  asio::io_context context_{kThreads};
  Tcp::acceptor acceptor_{asio::make_strand(context_)};
  asio::steady_timer pause_{acceptor_.get_executor()};
  std::vector<std::thread> threads_;
};

Http2Gate::Http2Gate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Http2Gate::~Http2Gate() = default;

void Http2Gate::StopAccepting() { impl_->StopAccepting(); }
Client Http2Gate::ClientOf(const std::string& peer) const { return impl_->ClientOf(peer); }

absl::StatusOr<std::unique_ptr<Http2Gate>> Http2Gate::Start(const std::string& address,
                                                            const FrontEnd& front,
                                                            RpcServer* server,
                                                            const FrameLimits& limits) {
  auto impl = std::make_unique<Impl>(front, server, limits);
  absl::StatusOr<std::string> bound = impl->Listen(address);
  if (!bound.ok()) return bound.status();
  std::unique_ptr<Http2Gate> gate(new Http2Gate(std::move(impl)));
  gate->address_ = *std::move(bound);
  return gate;
}

}  // namespace triptych::services
