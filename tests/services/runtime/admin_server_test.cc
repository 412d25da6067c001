// Defended: the admin port answers its three pages, and nothing that a stranger sends stops it.

#include "services/runtime/admin_server.h"

#include <boost/asio.hpp>
#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>

namespace triptych::services {
namespace {

using Tcp = boost::asio::ip::tcp;

// Sends `text` as it is and returns everything that comes back.
std::string Exchange(const std::string& address, const std::string& text) {
  boost::asio::io_context context;
  Tcp::socket socket(context);
  const size_t colon = address.rfind(':');
  socket.connect({boost::asio::ip::make_address(address.substr(0, colon)),
                  static_cast<uint16_t>(std::stoi(address.substr(colon + 1)))});
  boost::system::error_code error;
  boost::asio::write(socket, boost::asio::buffer(text), error);
  std::string answer;
  boost::asio::read(socket, boost::asio::dynamic_buffer(answer), error);
  return answer;
}

std::string Get(const std::string& address, const std::string& target) {
  return Exchange(address, "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
}

TEST_CASE("AdminServer: metrics, liveness and readiness", "[services][runtime]") {
  bool ready = false;
  auto server = AdminServer::Start("127.0.0.1:0", {[] { return std::string("a_metric 1\n"); },
                                                   [] { return true; }, [&] { return ready; }});
  REQUIRE(server.ok());
  const std::string address = (*server)->address();
  CHECK(Get(address, "/metrics").find("a_metric 1\n") != std::string::npos);
  CHECK(Get(address, "/healthz").find("HTTP/1.1 200") == 0);
  CHECK(Get(address, "/readyz").find("HTTP/1.1 503") == 0);
  ready = true;
  CHECK(Get(address, "/readyz").find("HTTP/1.1 200") == 0);
  CHECK(Get(address, "/etc/passwd").find("HTTP/1.1 404") == 0);
}

TEST_CASE("AdminServer: pages of a process's own are asked for last", "[services][runtime]") {
  AdminPages pages{[] { return std::string(); }, [] { return true; }, [] { return true; }};
  pages.other = [](absl::string_view path) -> std::optional<std::string> {
    if (path != "/timeline/a%20b") return std::nullopt;
    return "{}\n";
  };
  auto server = AdminServer::Start("127.0.0.1:0", std::move(pages));
  REQUIRE(server.ok());
  const std::string found = Get((*server)->address(), "/timeline/a%20b");
  CHECK(found.find("HTTP/1.1 200") == 0);
  CHECK(found.find("Content-Type: application/json") != std::string::npos);
  CHECK(found.substr(found.size() - 3) == "{}\n");
  CHECK(Get((*server)->address(), "/timeline/c").find("HTTP/1.1 404") == 0);
  CHECK(Get((*server)->address(), "/healthz").find("HTTP/1.1 200") == 0);
}

TEST_CASE("AdminServer: nonsense does not stop it", "[services][runtime]") {
  auto server = AdminServer::Start(
      "127.0.0.1:0", {[] { return std::string(); }, [] { return true; }, [] { return true; }});
  REQUIRE(server.ok());
  const std::string address = (*server)->address();
  Exchange(address, "\x01\x02nonsense\r\n\r\n");
  Exchange(address, "GET / HTTP/1.1\r\nX: " + std::string(100000, 'x') + "\r\n\r\n");
  Exchange(address, "POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n");
  CHECK(Get(address, "/healthz").find("HTTP/1.1 200") == 0);
}

TEST_CASE("AdminServer: says what is wrong with an address", "[services][runtime]") {
  const AdminPages pages{[] { return std::string(); }, [] { return true; }, [] { return true; }};
  auto server = AdminServer::Start("127.0.0.1:0", pages);
  REQUIRE(server.ok());
  CHECK(AdminServer::Start((*server)->address(), pages).status().code() ==
        absl::StatusCode::kUnavailable);
  CHECK(AdminServer::Start("nowhere", pages).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(AdminServer::Start("no.name:1", pages).status().code() ==
        absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::services
