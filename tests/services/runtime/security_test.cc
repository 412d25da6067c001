// Defends who may call whom. How: a real server and real certificates on loopback; the stranger has
// none, one of another authority, or one of another role. What is refused must not have reached the
// service.

#include <google/protobuf/descriptor.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/rpc.h"
#include "services/runtime/method_callers.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/security_options.h"
#include "tests/support/eventually.h"
#include "tests/support/plain_channel.h"
#include "triptych/v1/cluster.grpc.pb.h"
#include "triptych/v1/payload.pb.h"
#include "triptych/v1/scheduler.pb.h"
#include "triptych/v1/tokens.pb.h"
#include "triptych/v1/transfer.pb.h"

namespace triptych::services {
namespace {

using base::Role;
using base::RpcSecurity;
using triptych::testing::Eventually;

// Certificates of an authority of its own.
class TlsFolder {
 public:
  TlsFolder() {
    std::string pattern = "/tmp/triptych-tls-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    Renew();
  }
  ~TlsFolder() { std::filesystem::remove_all(path_); }
  // Of a new authority.
  void Renew() {
    const auto authority = base::CertificateAuthority::Make();
    REQUIRE(authority.ok());
    REQUIRE(base::WriteTlsFolder(*authority, path_).ok());
  }
  base::TlsFiles files(Role role) const { return base::TlsFilesIn(path_, role); }
  RpcSecurity As(Role role) const {
    auto security = RpcSecurity::FromFiles(files(role), std::chrono::seconds(1));
    REQUIRE(security.ok());
    return *std::move(security);
  }

 private:
  std::string path_;
};

class CountingCluster final : public v1::Cluster::CallbackService {
 public:
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context, const v1::DrainRequest*,
                                  v1::DrainResponse*) override {
    ++drains;
    return Done(context);
  }
  grpc::ServerUnaryReactor* GetSnapshot(grpc::CallbackServerContext* context,
                                        const v1::GetSnapshotRequest*,
                                        v1::ClusterSnapshot*) override {
    ++snapshots;
    return Done(context);
  }
  std::atomic<int> drains{0}, snapshots{0};

 private:
  static grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* context) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

struct Served {
  explicit Served(const RpcSecurity& security) {
    auto started = RpcServer::Start("127.0.0.1:0", base::RpcAudience::kInternal,
                                    security.Server(CallersOfMethod), {&service});
    REQUIRE(started.ok());
    server = *std::move(started);
  }
  grpc::StatusCode Drain(const std::shared_ptr<grpc::Channel>& channel) const {
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(5), &context);
    v1::DrainResponse response;
    return v1::Cluster::NewStub(channel)->Drain(&context, {}, &response).error_code();
  }
  grpc::StatusCode Snapshot(const std::shared_ptr<grpc::Channel>& channel) const {
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(5), &context);
    v1::ClusterSnapshot response;
    return v1::Cluster::NewStub(channel)->GetSnapshot(&context, {}, &response).error_code();
  }
  const std::string& address() const { return server->address(); }

  CountingCluster service;
  std::unique_ptr<RpcServer> server;
};

TEST_CASE("Security: a method hears the roles of its row and nobody else", "[services][security]") {
  const TlsFolder folder;
  const Served served(folder.As(Role::kScheduler));
  for (const Role role : base::kRoles) {
    INFO(ToString(role));
    const auto channel = base::Connect(served.address(), folder.As(role), Role::kScheduler);
    const bool drains = role == Role::kOperator;
    CHECK(served.Drain(channel) ==
          (drains ? grpc::StatusCode::OK : grpc::StatusCode::PERMISSION_DENIED));
    const bool looks = drains || role == Role::kGateway;
    CHECK(served.Snapshot(channel) ==
          (looks ? grpc::StatusCode::OK : grpc::StatusCode::PERMISSION_DENIED));
  }
  CHECK(served.service.drains == 1);
  CHECK(served.service.snapshots == 2);
}

TEST_CASE("Security: no certificate, or one of another authority, is no connection",
          "[services][security]") {
  const TlsFolder folder, other;
  Served served(folder.As(Role::kScheduler));
  CHECK(served.Drain(triptych::testing::PlainChannel(served.address())) ==
        grpc::StatusCode::UNAVAILABLE);
  CHECK(served.Drain(base::Connect(served.address(), other.As(Role::kOperator),
                                   Role::kScheduler)) == grpc::StatusCode::UNAVAILABLE);
  // Encrypted, but nobody: it trusts the right authority and shows nothing.
  grpc::experimental::TlsChannelCredentialsOptions nobody;
  nobody.set_verify_server_certs(false);
  nobody.set_check_call_host(false);
  nobody.set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  CHECK(served.Drain(
            grpc::CreateChannel(served.address(), grpc::experimental::TlsCredentials(nobody))) ==
        grpc::StatusCode::UNAVAILABLE);
  CHECK(served.service.drains == 0);
}

TEST_CASE("Security: a server of another role is not believed", "[services][security]") {
  const TlsFolder folder, other;
  const Served impostor(folder.As(Role::kWorker));
  CHECK(impostor.Drain(base::Connect(impostor.address(), folder.As(Role::kOperator),
                                     Role::kScheduler)) == grpc::StatusCode::UNAVAILABLE);
  const Served stranger(other.As(Role::kScheduler));
  CHECK(stranger.Drain(base::Connect(stranger.address(), folder.As(Role::kOperator),
                                     Role::kScheduler)) == grpc::StatusCode::UNAVAILABLE);
  CHECK(impostor.service.drains + stranger.service.drains == 0);
}

TEST_CASE("Security: files that change are read again", "[services][security]") {
  TlsFolder folder;
  const Served served(folder.As(Role::kScheduler));
  const RpcSecurity old = folder.As(Role::kOperator);
  CHECK(served.Drain(base::Connect(served.address(), old, Role::kScheduler)) ==
        grpc::StatusCode::OK);
  folder.Renew();
  // A new process that trusts the new authority alone.
  CHECK(Eventually(std::chrono::seconds(20), [&] {
    return served.Drain(base::Connect(served.address(), folder.As(Role::kOperator),
                                      Role::kScheduler)) == grpc::StatusCode::OK;
  }));
}

TEST_CASE("Security: every method between processes has its row", "[services][security]") {
  const google::protobuf::FileDescriptor* const files[] = {
      v1::DrainRequest::descriptor()->file(), v1::PullRequest::descriptor()->file(),
      v1::WorkerHello::descriptor()->file(), v1::TokenBatch::descriptor()->file(),
      v1::MoveChunk::descriptor()->file()};
  int methods = 0;
  for (const auto* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m, ++methods) {
        const std::string name = absl::StrCat("/", file->service(s)->full_name(), "/",
                                              file->service(s)->method(m)->name());
        INFO(name);
        CHECK_FALSE(CallersOfMethod(name) == base::RoleSet());
      }
    }
  }
  CHECK(methods >= 9);
  CHECK(CallersOfMethod("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") ==
        base::RoleSet());
  CHECK(CallersOfMethod("") == base::RoleSet());
}

TEST_CASE("Security: plain text must be asked for and stays on loopback", "[services][security]") {
  const TlsFolder folder;
  const base::TlsFiles files = folder.files(Role::kWorker);
  SecurityOptions options;
  CHECK(options.Open({"127.0.0.1:1"}).status().code() == absl::StatusCode::kInvalidArgument);
  options.insecure = true;
  CHECK(options.Open({"127.0.0.1:1", "unix:/tmp/x", "[::1]:1", "localhost:1"}).ok());
  for (const char* address : {"0.0.0.0:1", "10.0.0.1:1", "[::]:1", "127.example.com:1", ":1"}) {
    INFO(address);
    CHECK(options.Open({address}).status().code() == absl::StatusCode::kInvalidArgument);
  }
  options.ca = files.ca;
  CHECK_FALSE(options.Open({}).ok());
  options = {.ca = files.ca, .cert = files.cert, .key = files.key};
  CHECK(options.Open({"0.0.0.0:1"}).ok());
  options.key = folder.files(Role::kGateway).key;
  CHECK_FALSE(options.Open({}).ok());
  options.key = "/nowhere";
  CHECK_FALSE(options.Open({}).ok());
}

}  // namespace
}  // namespace triptych::services
