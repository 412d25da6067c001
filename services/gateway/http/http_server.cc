#include "services/gateway/http/http_server.h"

#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <utility>

#include "services/gateway/core/connection_table.h"
#include "services/gateway/http/http_session.h"
#include "services/gateway/rpc/passage.h"
#include "services/runtime/accept_loop.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

constexpr int kThreads = 2;
constexpr int kBacklog = 4096;

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const FrontEnd& front, const HttpTimeouts& timeouts) : front_(front), timeouts_(timeouts) {}

  absl::StatusOr<std::string> Listen(const std::string& address) {
    return loop_.Listen(address, kBacklog);
  }

 private:
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
  AcceptLoop loop_{kThreads, [this](Tcp::socket socket) { Admit(std::move(socket)); }};
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
