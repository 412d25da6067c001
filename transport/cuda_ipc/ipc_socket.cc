#include "transport/cuda_ipc/ipc_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace triptych::transport {
namespace {

// Workers of one host that begin to receive from one at the same time.
constexpr int kBacklog = 64;

struct Address {
  sockaddr_un address = {};
  socklen_t size = 0;
};

absl::StatusOr<Address> AddressOf(const std::string& name) {
  Address out;
  if (name.empty() || name.size() >= sizeof(out.address.sun_path)) {
    return absl::InvalidArgumentError("cuda_ipc: a channel's name has 1 to 106 characters");
  }
  out.address.sun_family = AF_UNIX;
  std::copy(name.begin(), name.end(), out.address.sun_path + 1);
  out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return out;
}

absl::Status Failed(const char* what) {
  return absl::UnavailableError(absl::StrCat("cuda_ipc: ", what, ": ", std::strerror(errno)));
}

int NewSocket() { return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

}  // namespace

void IpcMessage::set_text(const std::string& value) {
  CHECK_LE(value.size(), sizeof(text));
  text_bytes = static_cast<uint32_t>(value.size());
  std::copy(value.begin(), value.end(), text);
}

std::string IpcMessage::get_text() const {
  return std::string(text, std::min<size_t>(text_bytes, sizeof(text)));
}

IpcSocket::~IpcSocket() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<IpcSocket> IpcSocket::Listen(const std::string& name) {
  const absl::StatusOr<Address> address = AddressOf(name);
  if (!address.ok()) return address.status();
  IpcSocket out(NewSocket());
  if (out.fd_ < 0) return Failed("socket");
  if (bind(out.fd_, reinterpret_cast<const sockaddr*>(&address->address), address->size) != 0) {
    return Failed("bind");
  }
  if (listen(out.fd_, kBacklog) != 0) return Failed("listen");
  return out;
}

absl::StatusOr<IpcSocket> IpcSocket::Connect(const std::string& name) {
  const absl::StatusOr<Address> address = AddressOf(name);
  if (!address.ok()) return address.status();
  IpcSocket out(NewSocket());
  if (out.fd_ < 0) return Failed("socket");
  if (connect(out.fd_, reinterpret_cast<const sockaddr*>(&address->address), address->size) != 0) {
    return Failed("connect");
  }
  return out;
}

std::optional<IpcSocket> IpcSocket::Accept() const {
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return std::nullopt;
  return IpcSocket(fd);
}

std::optional<uid_t> IpcSocket::PeerUser() const {
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return std::nullopt;
  return credentials.uid;
}

IpcSocket::Result IpcSocket::Send(const IpcMessage& message) const {
  const ssize_t sent = send(fd_, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent == static_cast<ssize_t>(sizeof(message))) return Result::kDone;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? Result::kLater
                                                                   : Result::kBroken;
}

IpcSocket::Result IpcSocket::Receive(IpcMessage* message) const {
  const ssize_t got = recv(fd_, message, sizeof(*message), MSG_DONTWAIT | MSG_TRUNC);
  if (got == static_cast<ssize_t>(sizeof(*message)) && message->version == IpcMessage::kVersion) {
    return Result::kDone;
  }
  const bool again = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
  return again ? Result::kLater : Result::kBroken;
}

bool IpcSocket::HungUp() const {
  pollfd entry{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void IpcSocket::Shutdown() const { shutdown(fd_, SHUT_RDWR); }

}  // namespace triptych::transport
