#include "tests/integration/http_client.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace triptych::testing {
namespace {

using nlohmann::json;

// Comes once with each token, however many an event has.
constexpr absl::string_view kToken = "\"top_logprobs\":";
constexpr absl::string_view kEnd = "data: [DONE]";

json ContentOf(const v1::ContentPart& part) {
  if (part.has_text()) return {{"type", "text"}, {"text", part.text()}};
  if (part.has_image()) {
    const std::string url =
        absl::StrCat("data:image/png;base64,", absl::Base64Escape(part.image().data()));
    return {{"type", "image_url"}, {"image_url", {{"url", url}}}};
  }
  std::string frames;
  for (const v1::Image& frame : part.video().frames()) {
    absl::StrAppend(&frames, frames.empty() ? "" : ",", absl::Base64Escape(frame.data()));
  }
  return {{"type", "video_url"},
          {"fps", part.video().fps()},
          {"video_url", {{"url", absl::StrCat("data:video/png;base64,", frames)}}}};
}

int Count(absl::string_view text, absl::string_view word) {
  int count = 0;
  for (size_t at = text.find(word); at != absl::string_view::npos;
       at = text.find(word, at + word.size())) {
    ++count;
  }
  return count;
}

}  // namespace

std::string HttpBody(const v1::GenerateRequest& request) {
  json messages = json::array();
  for (const v1::Message& message : request.messages()) {
    json content = json::array();
    for (const v1::ContentPart& part : message.content()) content.push_back(ContentOf(part));
    messages.push_back({{"role", message.role()}, {"content", std::move(content)}});
  }
  json body = {{"messages", std::move(messages)},
               {"stream", true},
               {"logprobs", true},
               {"temperature", request.sampling().temperature()},
               {"seed", request.sampling().seed()}};
  if (request.has_max_tokens()) body["max_tokens"] = request.max_tokens();
  return body.dump();
}

std::string HttpRequest(const std::string& body) {
  return absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: ",
                      "application/json\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

HttpClient::HttpClient(const std::string& address)
    : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  int port = 0;
  REQUIRE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
}

void HttpClient::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    REQUIRE(sent > 0);
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool HttpClient::WaitTokens(int count, base::Duration timeout) {
  const base::RealClock clock;
  const base::TimePoint until = clock.Now() + timeout;
  char buffer[4096];
  while (Count(received_, kToken) < count) {
    // The connection stays open for the next request.
    if (absl::StrContains(received_, kEnd)) return false;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock.Now()).count();
    pollfd waited = {socket_, POLLIN, 0};
    if (left <= 0 || poll(&waited, 1, static_cast<int>(left)) <= 0) return false;
    const ssize_t read = recv(socket_, buffer, sizeof(buffer), 0);
    if (read <= 0) return false;
    received_.append(buffer, static_cast<size_t>(read));
  }
  return true;
}

void HttpClient::Leave() {
  if (socket_ >= 0) close(std::exchange(socket_, -1));
}

}  // namespace triptych::testing
