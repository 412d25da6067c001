// Defended: the server's side of TLS says what its files say, to whom it should. The client is
// OpenSSL's on the other end of a socket pair, on a thread.

#include "base/tls_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/certificates.h"
#include "base/clock.h"
#include "tests/support/tls_client.h"

namespace triptych::base {
namespace {

using triptych::testing::TlsClient;

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / absl::StrCat("tls_server_test_", getpid());
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }

  TlsServer::Files Write(const std::string& name) {
    const auto authority = CertificateAuthority::Make();
    REQUIRE(authority.ok());
    const auto credentials = authority->Issue(Role::kGateway);
    REQUIRE(credentials.ok());
    const TlsServer::Files files{.cert = path / (name + ".pem"), .key = path / (name + ".key")};
    std::ofstream(files.cert) << credentials->certificate;
    std::ofstream(files.key) << credentials->key;
    return files;
  }
};

struct Pair {
  int client = -1, server = -1;
  Pair() {
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    client = pair[0];
    server = pair[1];
    REQUIRE(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
  }
  ~Pair() { close(server); }  // the client has its own
};

// Echoes what comes, as one that waits for the socket.
std::string Echo(TlsConnection* connection, int descriptor) {
  std::string all;
  char bytes[1000];
  const auto wait = [&] {
    const int events = connection->wants_write() ? POLLOUT : POLLIN;
    pollfd waiting{.fd = descriptor, .events = static_cast<short>(events), .revents = 0};
    return poll(&waiting, 1, 20'000) == 1;
  };
  while (true) {
    const ssize_t got = connection->Read(bytes, sizeof(bytes));
    if (got == 0) return all;
    if (got < 0) {
      if (errno != EAGAIN || !wait()) return all + " broken";
      continue;
    }
    all.append(bytes, static_cast<size_t>(got));
    ssize_t sent = -1;
    while ((sent = connection->Write(bytes, static_cast<size_t>(got))) < 0) {
      if (errno != EAGAIN || !wait()) return all + " broken";
    }
    if (sent < got) return all + " cut";
  }
}

struct Result {
  bool handshake = false;
  std::string echoed, heard, serial;
};

Result Talk(TlsServer* server, const TlsClient::Options& options) {
  Result result;
  Pair pair;
  const auto connection = server->Accept(pair.server);
  REQUIRE(connection != nullptr);
  std::thread serving([&] {
    result.heard = Echo(connection.get(), pair.server);
    shutdown(pair.server, SHUT_RDWR);
  });
  {
    TlsClient client(pair.client, options);
    result.handshake = client.Handshake();
    if (result.handshake) {
      client.Send("hello");
      result.echoed = client.ReadUntil("hello");
      result.serial = client.Serial();
      client.CloseSending();
    }
  }
  serving.join();
  return result;
}

TEST_CASE("TlsServer: bytes go both ways, and an end is an end", "[base][tls][security]") {
  Folder folder;
  const SimulatedClock clock;
  const auto server = TlsServer::Load(folder.Write("one"), "h2", clock);
  REQUIRE(server.ok());
  for (const char* protocol : {"h2", ""}) {
    const Result result = Talk(server->get(), {.protocol = protocol});
    CHECK(result.handshake);
    CHECK(result.echoed == "hello");
    CHECK(result.heard == "hello");
  }
}

TEST_CASE("TlsServer: old versions, other protocols and plain text are refused",
          "[base][tls][security]") {
  Folder folder;
  const SimulatedClock clock;
  const auto server = TlsServer::Load(folder.Write("one"), "h2", clock);
  REQUIRE(server.ok());
  CHECK_FALSE(Talk(server->get(), {.protocol = "http/1.1"}).handshake);
  CHECK_FALSE(Talk(server->get(), {.protocol = "h2", .newest = TLS1_1_VERSION}).handshake);
  CHECK(Talk(server->get(), {.protocol = "h2", .newest = TLS1_2_VERSION}).handshake);
  Pair pair;
  const auto connection = (*server)->Accept(pair.server);
  REQUIRE(send(pair.client, "GET / HTTP/1.1\r\n\r\n", 18, 0) == 18);
  char byte = 0;
  CHECK(connection->Read(&byte, 1) == -1);
  CHECK(errno != EAGAIN);
  close(pair.client);
}

TEST_CASE("TlsServer: files that change are read again, if they serve", "[base][tls][security]") {
  Folder folder;
  SimulatedClock clock;
  const TlsServer::Files files = folder.Write("one");
  const auto server = TlsServer::Load(files, "h2", clock);
  REQUIRE(server.ok());
  const std::string first = Talk(server->get(), {}).serial;
  std::ofstream(files.cert) << "nothing";
  clock.Advance(std::chrono::seconds(3));
  CHECK(Talk(server->get(), {}).serial == first);
  folder.Write("one");
  clock.Advance(std::chrono::seconds(3));
  const Result renewed = Talk(server->get(), {});
  CHECK(renewed.echoed == "hello");
  CHECK(renewed.serial != first);
}

TEST_CASE("TlsServer: files that do not serve are named", "[base][tls][security]") {
  Folder folder;
  const SimulatedClock clock;
  TlsServer::Files files = folder.Write("one");
  const TlsServer::Files others = folder.Write("two");
  files.key = others.key;
  const auto mixed = TlsServer::Load(files, "h2", clock);
  REQUIRE(absl::IsInvalidArgument(mixed.status()));
  CHECK(mixed.status().message().find(files.key) != std::string::npos);
  CHECK(absl::IsInvalidArgument(
      TlsServer::Load({.cert = "/none", .key = files.key}, "h2", clock).status()));
}

}  // namespace
}  // namespace triptych::base
