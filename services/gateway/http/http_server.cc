#include "services/gateway/http/http_server.h"

#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "services/gateway/core/connection_table.h"
#include "services/gateway/http/http_session.h"
#include "services/gateway/rpc/passage.h"
#include "services/runtime/listener.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

constexpr int kThreads = 2;
constexpr int kBacklog = 4096;
// When the process is out of descriptors, accepting again at once would only burn a core.
constexpr auto kAcceptPause = std::chrono::milliseconds(50);

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const FrontEnd& front, const HttpTimeouts& timeouts) : front_(front), timeouts_(timeouts) {}
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

 private:
  void Accept() {
    acceptor_.async_accept(asio::make_strand(context_), [this](Error error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error) {
        Admit(std::move(socket));
        return Accept();
      }
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](Error stopped) {
        if (!stopped) Accept();
      });
    });
  }

  void Admit(Tcp::socket socket) {
    Error error;
    const std::string host = socket.remote_endpoint(error).address().to_string();
    HttpSession::Socket end(socket.get_executor());
    std::shared_ptr<Passage> passage;
    if (front_.http_tls == nullptr) {
      end = std::move(socket);
    } else {
      passage = std::make_shared<Passage>(std::move(socket), front_.core.clock(),
                                          Passage::Options{.tls = front_.http_tls});
      const absl::StatusOr<int> descriptor = passage->Open();
      if (!descriptor.ok()) return;
      end.assign(asio::generic::stream_protocol(AF_UNIX, 0), *descriptor, error);
    }
    const auto session =
        std::make_shared<HttpSession>(std::move(end), ClientAt(host, ""), front_, timeouts_);
    // Not let in: the socket closes with the session, and a passage when its other end is closed.
    auto place = table_.Enter(session, session->address());
    if (place == nullptr) return;
    session->Run(std::move(place));
    if (passage != nullptr) passage->Run(nullptr);
  }

  const FrontEnd& front_;
  const HttpTimeouts timeouts_;
  ConnectionTable<HttpSession> table_{front_.connections};
  asio::io_context context_{kThreads};
  Tcp::acceptor acceptor_{context_};
  asio::steady_timer pause_{context_};
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              const FrontEnd& front,
                                                              const HttpTimeouts& timeouts) {
  auto impl = std::make_unique<Impl>(front, timeouts);
  absl::StatusOr<std::string> bound = impl->Listen(address);
  if (!bound.ok()) return bound.status();
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(impl)));
  server->address_ = *std::move(bound);
  return server;
}

}  // namespace triptych::services
