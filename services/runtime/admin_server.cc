#include "services/runtime/admin_server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "base/process_stats.h"
#include "services/runtime/accept_loop.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;

constexpr auto kTimeout = std::chrono::seconds(5);
constexpr uint64_t kMaxBodyBytes = 1024;
constexpr int kBacklog = 128;

http::response<http::string_body> Answer(const AdminPages& pages, beast::string_view target) {
  http::response<http::string_body> response(http::status::ok, 11);
  response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
  const auto verdict = [&](bool good) {
    response.result(good ? http::status::ok : http::status::service_unavailable);
    response.body() = good ? "ok\n" : "unavailable\n";
  };
  if (target == "/metrics") {
    response.body() = pages.metrics() + base::ProcessStatsText();
  } else if (target == "/healthz") {
    verdict(pages.alive());
  } else if (target == "/readyz") {
    verdict(pages.ready());
  } else if (auto found =
                 pages.other ? pages.other({target.data(), target.size()}) : std::nullopt) {
    response.set(http::field::content_type, "application/json");
    response.body() = *std::move(found);
  } else {
    response.result(http::status::not_found);
    response.body() = "not found\n";
  }
  response.keep_alive(false);
  response.prepare_payload();
  return response;
}

// One request a connection.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, const AdminPages& pages) : stream_(std::move(socket)), pages_(pages) {
    parser_.body_limit(kMaxBodyBytes);
  }

  void Run() {
    stream_.expires_after(kTimeout);
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](beast::error_code error, size_t) {
                       if (!error) self->Reply();
                     });
  }

 private:
  void Reply() {
    response_ = Answer(pages_, parser_.get().target());
    http::async_write(stream_, response_, [self = shared_from_this()](beast::error_code, size_t) {
      beast::error_code ignored;
      self->stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
    });
  }

  beast::tcp_stream stream_;
  const AdminPages& pages_;
  beast::flat_buffer buffer_{16384};
  http::request_parser<http::string_body> parser_;
  http::response<http::string_body> response_;
};

}  // namespace

class AdminServer::Impl {
 public:
  explicit Impl(AdminPages pages) : pages_(std::move(pages)) {}

  absl::StatusOr<std::string> Listen(const std::string& address) {
    return loop_.Listen(address, kBacklog);
  }

 private:
  const AdminPages pages_;
  AcceptLoop loop_{1, [this](Tcp::socket socket) {
                     std::make_shared<Session>(std::move(socket), pages_)->Run();
                   }};
};

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminServer::~AdminServer() = default;

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const std::string& address,
                                                                AdminPages pages) {
  auto impl = std::make_unique<Impl>(std::move(pages));
  absl::StatusOr<std::string> bound = impl->Listen(address);
  if (!bound.ok()) return bound.status();
  std::unique_ptr<AdminServer> server(new AdminServer(std::move(impl)));
  server->address_ = *std::move(bound);
  return server;
}

}  // namespace triptych::services
