// Defended: TLS on the client ports, where everything else is as in plain text. How: the whole
// front over certificates of an authority of its own, asked by gRPC's and by OpenSSL's client.

#include <arpa/inet.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "base/certificates.h"
#include "base/rpc.h"
#include "base/tls_server.h"
#include "tests/services/gateway/front_fixture.h"
#include "tests/services/gateway/raw_http_client.h"
#include "tests/support/skip.h"
#include "tests/support/tls_client.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {
namespace {

using base::CertificateAuthority;
using base::TlsServer;
using scheduler::Finish;
using testing::FrontFixture;
using triptych::testing::TlsClient;

constexpr char kHello[] = R"({"messages":[{"role":"user","content":"Hello"}]})";

bool ModelMissing() {
  if (testing::SmallModel() == nullptr)
    triptych::testing::SkipTest("the shipped model is not here");
  return testing::SmallModel() == nullptr;
}

int Connected(const std::string& address) {
  sockaddr_in to{};
  int port = 0;
  REQUIRE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(connect(descriptor, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0);
  return descriptor;
}

// The front, and who vouches for it.
class TlsFront {
 public:
  TlsFront() {
    const auto authority = CertificateAuthority::Make();
    REQUIRE(authority.ok());
    root = authority->certificate();
    const auto credentials = authority->Issue(base::Role::kGateway);
    REQUIRE(credentials.ok());
    std::string pattern = "/tmp/triptych-client-tls-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    const std::filesystem::path folder = pattern;
    std::ofstream(folder / "cert") << credentials->certificate;
    std::ofstream(folder / "key") << credentials->key;
    for (const auto& [protocol, server] : {std::pair{"http/1.1", &http_}, {"h2", &grpc_}}) {
      auto loaded =
          TlsServer::Load({.cert = folder / "cert", .key = folder / "key"}, protocol, clock_);
      REQUIRE(loaded.ok());
      *server = *std::move(loaded);
    }
    std::filesystem::remove_all(folder);
    front.emplace(FrontFixture::Options{.http_tls = http_.get(), .grpc_tls = grpc_.get()});
  }

  std::string root;

 private:
  const base::RealClock clock_;
  std::unique_ptr<TlsServer> http_, grpc_;

 public:
  std::optional<FrontFixture> front;  // last: it borrows all above
};

TEST_CASE("Client ports: over TLS an HTTP client gets its answer, also when it sends no more",
          "[gateway][http][tls][security]") {
  if (ModelMissing()) return;
  TlsFront tls;
  for (const bool half_closes : {false, true}) {
    TlsClient client(Connected(tls.front->http_address()), {.protocol = "http/1.1"});
    REQUIRE(client.Handshake());
    REQUIRE(client.Send(testing::Post(kHello)));
    const auto id = tls.front->WaitSubmit().request;
    if (half_closes) client.CloseSending();
    tls.front->Say(id, "Hi.", Finish::kStop);
    CHECK(client.ReadUntil("\"Hi.\"").find("HTTP/1.1 200 OK") != std::string::npos);
  }
  tls.front->RequireIdle();
}

TEST_CASE("Client ports: over TLS a departure is noticed", "[gateway][http][tls][security]") {
  if (ModelMissing()) return;
  TlsFront tls;
  {
    TlsClient client(Connected(tls.front->http_address()), {});
    REQUIRE(client.Handshake());
    REQUIRE(client.Send(testing::Post(kHello)));
    tls.front->WaitSubmit();
  }
  tls.front->RequireIdle();
  CHECK(tls.front->Terminals("cancelled") == 1);
}

TEST_CASE("Client ports: over TLS gRPC serves who believes its authority, and no other",
          "[gateway][grpc][tls][security]") {
  if (ModelMissing()) return;
  TlsFront tls;
  const auto other = CertificateAuthority::Make();
  REQUIRE(other.ok());
  for (const auto& [root, served] : {std::pair{tls.root, true}, {other->certificate(), false}}) {
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::StaticDataCertificateProvider>(root));
    options.watch_root_certs();
    options.set_check_call_host(false);
    options.set_certificate_verifier(
        std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
    const auto stub = v1::Inference::NewStub(grpc::CreateChannel(
        tls.front->grpc_address(), grpc::experimental::TlsCredentials(options)));
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(20), &context);
    v1::GetModelRequest request;
    v1::GetModelResponse response;
    const grpc::Status status = stub->GetModel(&context, request, &response);
    CHECK(status.ok() == served);
  }
}

TEST_CASE("Client ports: who speaks plain text, or the other port's protocol, is not heard",
          "[gateway][tls][security]") {
  if (ModelMissing()) return;
  TlsFront tls;
  for (const std::string& address : {tls.front->http_address(), tls.front->grpc_address()}) {
    const int plain = Connected(address);
    const std::string post = testing::Post(kHello);
    REQUIRE(send(plain, post.data(), post.size(), 0) == static_cast<ssize_t>(post.size()));
    char bytes[1000];
    // An alert at most.
    CHECK(recv(plain, bytes, sizeof(bytes), 0) < 10);
    close(plain);
  }
  TlsClient wrong(Connected(tls.front->grpc_address()), {.protocol = "http/1.1"});
  CHECK_FALSE(wrong.Handshake());
  CHECK(tls.front->submitted() == 0);
}

}  // namespace
}  // namespace triptych::services
