#include "base/rpc_security.h"

#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"

namespace triptych::base {
namespace {

using grpc::experimental::ExternalCertificateVerifier;
using grpc::experimental::TlsCustomVerificationCheckRequest;

// The authority's signature has been checked when this is asked.
class ServerHasRole final : public ExternalCertificateVerifier {
 public:
  explicit ServerHasRole(Role role) : uri_(RoleUri(role)) {}

  bool Verify(TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* status) override {
    const std::vector<grpc::string_ref> uris = request->uri_names();
    const bool has = std::find(uris.begin(), uris.end(), uri_) != uris.end();
    *status = has ? grpc::Status::OK
                  : grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "another role than expected");
    return true;  // answered at once
  }
  void Cancel(TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::string uri_;
};

class CallerHasRole final : public grpc::AuthMetadataProcessor {
 public:
  explicit CallerHasRole(CallersOf callers) : callers_(std::move(callers)) {}
  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    const auto path = metadata.find(":path");
    RoleSet admitted;
    if (path != metadata.end()) {
      admitted = callers_(absl::string_view(path->second.data(), path->second.size()));
    }
    const std::vector<grpc::string_ref> uris =
        context->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
    for (const Role role : kRoles) {
      if (!admitted.has(role)) continue;
      if (std::find(uris.begin(), uris.end(), RoleUri(role)) != uris.end()) {
        return grpc::Status::OK;
      }
    }
    return {grpc::StatusCode::PERMISSION_DENIED, "not for this role"};
  }

 private:
  const CallersOf callers_;
};

}  // namespace

absl::StatusOr<RpcSecurity> RpcSecurity::FromFiles(const TlsFiles& files, Duration look_every) {
  RETURN_IF_ERROR(CheckTlsFiles(files));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(look_every).count();
  RpcSecurity security;
  security.provider_ = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key, files.cert, files.ca, static_cast<unsigned>(std::max<int64_t>(1, seconds)));
  return security;
}

std::shared_ptr<grpc::ChannelCredentials> RpcSecurity::ChannelTo(Role peer) const {
  if (none()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_verify_server_certs(true);
  // Peers are named by their roles; their addresses come and go.
  options.set_check_call_host(false);
  options.set_certificate_verifier(ExternalCertificateVerifier::Create<ServerHasRole>(peer));
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> RpcSecurity::Server(CallersOf callers) const {
  if (none()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(provider_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  auto credentials = grpc::experimental::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(std::make_shared<CallerHasRole>(std::move(callers)));
  return credentials;
}

}  // namespace triptych::base
