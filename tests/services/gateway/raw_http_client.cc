#include "tests/services/gateway/raw_http_client.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace triptych::services::testing {
namespace {

// Whether `what` (POLLIN, POLLOUT) comes in time. The end of the connection counts.
bool WaitReady(int descriptor, short what, base::Duration timeout) {
  pollfd waited = {descriptor, what, 0};
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  return poll(&waited, 1, static_cast<int>(ms)) > 0;
}

}  // namespace

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

std::string ErrorCode(const HttpReply& reply) {
  INFO(reply.body);
  CHECK(reply.header("content-type") == "application/json");
  const auto json = nlohmann::json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  REQUIRE(json.is_object());
  REQUIRE(json.size() == 1);
  const auto error = json.value("error", nlohmann::json::object());
  REQUIRE(error.size() == 5);
  for (const char* key : {"type", "code", "message", "request_id"}) {
    REQUIRE(error.contains(key));
    REQUIRE(error[key].is_string());
  }
  REQUIRE((error["param"].is_null() || error["param"].is_string()));
  CHECK_FALSE(error["message"].get<std::string>().empty());
  CHECK(error["request_id"].get<std::string>() == reply.header("x-request-id"));
  return error["code"].get<std::string>();
}

std::string Post(absl::string_view body, absl::string_view more_headers) {
  return absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: ",
                      body.size(), "\r\n", more_headers, "\r\n", body);
}

std::string PostTo(absl::string_view path, absl::string_view body) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: gateway\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", body);
}

std::string Get(absl::string_view path, absl::string_view method) {
  return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: gateway\r\n\r\n");
}

RawHttpClient::RawHttpClient(const std::string& address)
    : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  int port = 0;
  REQUIRE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
}

bool RawHttpClient::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    REQUIRE(WaitReady(socket_, POLLOUT, kPatience));
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

HttpReply RawHttpClient::Read(Body body) {
  HttpReply reply;
  const std::string first = Line();
  REQUIRE(first.rfind("HTTP/1.1 ", 0) == 0);
  REQUIRE(absl::SimpleAtoi(first.substr(9, 3), &reply.status));
  for (std::string line = Line(); !line.empty(); line = Line()) {
    const size_t colon = line.find(": ");
    REQUIRE(colon != std::string::npos);
    const bool fresh =
        reply.headers.emplace(absl::AsciiStrToLower(line.substr(0, colon)), line.substr(colon + 2))
            .second;
    REQUIRE(fresh);
  }
  if (body == Body::kNone) return reply;
  size_t length = 0;
  if (reply.header("transfer-encoding") == "chunked") {
    reply.body = Chunks();
  } else if (absl::SimpleAtoi(reply.header("content-length"), &length)) {
    reply.body = Bytes(length);
  } else {
    while (Receive()) {
    }
    reply.body = std::exchange(received_, {});
  }
  return reply;
}

std::string RawHttpClient::Chunks() {
  std::string body;
  while (true) {
    size_t size = 0;
    REQUIRE(absl::SimpleHexAtoi(Line(), &size));
    body += Bytes(size);
    REQUIRE(Line().empty());
    if (size == 0) return body;
  }
}

std::string RawHttpClient::Line() {
  WaitFor("\r\n");
  const size_t end = received_.find("\r\n");
  std::string line = received_.substr(0, end);
  received_.erase(0, end + 2);
  return line;
}

std::string RawHttpClient::Bytes(size_t count) {
  while (received_.size() < count) REQUIRE(Receive());
  std::string bytes = received_.substr(0, count);
  received_.erase(0, count);
  return bytes;
}

void RawHttpClient::WaitFor(absl::string_view text) {
  while (!absl::StrContains(received_, text)) {
    INFO("received \"" << received_.substr(0, 2000) << "\"");
    REQUIRE(Receive());
  }
}

const std::string& RawHttpClient::Peek() {
  while (WaitReady(socket_, POLLIN, base::Duration(0)) && Receive()) {
  }
  return received_;
}

bool RawHttpClient::Closed() {
  const bool more = Receive();
  return !more && received_.empty();
}

bool RawHttpClient::Receive() {
  char buffer[16 << 10];
  REQUIRE(WaitReady(socket_, POLLIN, kPatience));
  const ssize_t read = recv(socket_, buffer, sizeof(buffer), 0);
  if (read > 0) received_.append(buffer, static_cast<size_t>(read));
  return read > 0;
}

void RawHttpClient::CloseSending() { shutdown(socket_, SHUT_WR); }

void RawHttpClient::Leave() {
  if (socket_ >= 0) close(std::exchange(socket_, -1));
}

}  // namespace triptych::services::testing
