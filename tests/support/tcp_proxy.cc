#include "tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <iterator>
#include <vector>

namespace triptych::testing {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// A socket that is bound to a port of the system's choice.
int Bound(int* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  *port = ntohs(address.sin_port);
  return fd;
}

}  // namespace

int FreePort() {
  int port = 0;
  close(Bound(&port));
  return port;
}

TcpProxy::TcpProxy(int target_port) : target_port_(target_port) {
  listener_ = Bound(&port_);
  REQUIRE(listen(listener_, 64) == 0);
  REQUIRE(pipe2(wake_, O_CLOEXEC) == 0);
  thread_ = std::thread([this] { Run(); });
}

TcpProxy::~TcpProxy() {
  {
    base::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  (void)!write(wake_[1], "x", 1);
  thread_.join();
  ResetAll();
  for (int fd : {listener_, wake_[0], wake_[1]}) close(fd);
}

std::string TcpProxy::address() const { return "127.0.0.1:" + std::to_string(port_); }

void TcpProxy::Reset(const Connection& connection) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  for (int fd : {connection.client, connection.target}) {
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
  }
}

int TcpProxy::ResetAll() {
  base::MutexLock lock(&mutex_);
  const int count = static_cast<int>(connections_.size());
  for (const Connection& connection : connections_) Reset(connection);
  connections_.clear();
  (void)!write(wake_[1], "x", 1);
  return count;
}

void TcpProxy::Hold(Direction direction, bool hold) {
  base::MutexLock lock(&mutex_);
  (direction == Direction::kToTarget ? hold_to_target_ : hold_from_target_) = hold;
  (void)!write(wake_[1], "x", 1);
}

void TcpProxy::Accept() {
  Connection connection;
  connection.client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (connection.client < 0) return;
  connection.target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(target_port_);
  if (connect(connection.target, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Reset(connection);
  }
  connections_.push_back(connection);
}

bool TcpProxy::Forward(int from, int to) {
  char bytes[1 << 16];
  const ssize_t count = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN;
  for (ssize_t sent = 0; sent < count;) {
    const ssize_t more = send(to, bytes + sent, static_cast<size_t>(count - sent), MSG_NOSIGNAL);
    if (more <= 0) return false;
    sent += more;
  }
  return count > 0;
}

void TcpProxy::Run() {
  while (true) {
    std::vector<pollfd> fds = {{wake_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
    {
      base::MutexLock lock(&mutex_);
      if (stopping_) return;
      for (const Connection& c : connections_) {
        if (!hold_to_target_) fds.push_back({c.client, POLLIN, 0});
        if (!hold_from_target_) fds.push_back({c.target, POLLIN, 0});
      }
    }
    poll(fds.data(), fds.size(), -1);
    base::MutexLock lock(&mutex_);
    char woken[64];
    if (fds[0].revents != 0) (void)!read(wake_[0], woken, sizeof woken);
    if (fds[1].revents != 0) Accept();
    for (auto it = connections_.begin(); it != connections_.end();) {
      const bool open = (hold_to_target_ || Forward(it->client, it->target)) &&
                        (hold_from_target_ || Forward(it->target, it->client));
      if (!open) Reset(*it);
      it = open ? std::next(it) : connections_.erase(it);
    }
  }
}

}  // namespace triptych::testing
