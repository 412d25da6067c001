#include "services/cli/http_get.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status.h"

namespace triptych::services {
namespace {

// Most that an admin page may be.
constexpr size_t kMaxReplyBytes = 16 << 20;

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

absl::StatusOr<Socket> ConnectTo(const std::string& address, base::Duration timeout) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return absl::InvalidArgumentError(address + ": want host:port");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string host = address.substr(0, colon), port = address.substr(colon + 1);
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return absl::UnavailableError(address + ": unknown host");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  Socket connection(socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0));
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(timeout).count();
  const timeval limit = {us / 1'000'000, us % 1'000'000};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(connection.get(), found->ai_addr, found->ai_addrlen) != 0) {
    return absl::UnavailableError(address + ": cannot connect");
  }
  return connection;
}

absl::StatusOr<std::string> ReadAll(const Socket& connection) {
  std::string text;
  char buffer[16384];
  while (text.size() < kMaxReplyBytes) {
    const ssize_t count = recv(connection.get(), buffer, sizeof(buffer), 0);
    if (count < 0) return absl::UnavailableError("no answer in time");
    if (count == 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  return text;
}

}  // namespace

absl::StatusOr<HttpReply> HttpGet(const std::string& address, absl::string_view path,
                                  base::Duration timeout) {
  ASSIGN_OR_RETURN(const Socket connection, ConnectTo(address, timeout));
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\nConnection: close\r\n\r\n");
  if (send(connection.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return absl::UnavailableError(address + ": cannot send");
  }
  ASSIGN_OR_RETURN(const std::string text, ReadAll(connection));
  const size_t end = text.find("\r\n\r\n");
  const std::vector<absl::string_view> words =
      absl::StrSplit(absl::string_view(text).substr(0, text.find("\r\n")), ' ');
  HttpReply reply;
  if (end == std::string::npos || words.size() < 2 || !absl::SimpleAtoi(words[1], &reply.status)) {
    return absl::InternalError(address + ": the answer is not HTTP");
  }
  reply.body = text.substr(end + 4);
  return reply;
}

}  // namespace triptych::services
