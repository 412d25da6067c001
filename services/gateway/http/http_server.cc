#include "services/gateway/http/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/http/http_session.h"

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
    const size_t colon = address.rfind(':');
    int port = 0;
    Error error;
    if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port)) {
      return absl::InvalidArgumentError(absl::StrCat("not host:port: ", address));
    }
    const auto host = asio::ip::make_address(address.substr(0, colon), error);
    if (error) return absl::InvalidArgumentError(absl::StrCat("not an IP address: ", address));
    const Tcp::endpoint endpoint(host, static_cast<uint16_t>(port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(kBacklog, error);
    if (error) return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    Accept();
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return absl::StrCat(address.substr(0, colon), ":", acceptor_.local_endpoint().port());
  }

 private:
  void Accept() {
    acceptor_.async_accept(asio::make_strand(context_), [this](Error error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error) {
        std::make_shared<HttpSession>(std::move(socket), front_, timeouts_)->Run();
        return Accept();
      }
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](Error stopped) {
        if (!stopped) Accept();
      });
    });
  }

  const FrontEnd& front_;
  const HttpTimeouts timeouts_;
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
