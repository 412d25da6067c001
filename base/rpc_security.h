#pragma once

// Who may speak to whom by gRPC: mutual TLS between the processes of a cluster. A client believes a
// server whose certificate has the role that it means to call; a server hears a call whose method
// admits the role in the caller's certificate. Both trust one authority.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/certificates.h"
#include "base/clock.h"

namespace triptych::base {

class RoleSet {
 public:
  constexpr RoleSet() = default;
  constexpr RoleSet(std::initializer_list<Role> roles) {
    for (const Role role : roles) bits_ |= 1u << static_cast<int>(role);
  }
  constexpr bool has(Role role) const { return (bits_ >> static_cast<int>(role) & 1) != 0; }
  constexpr bool operator==(const RoleSet&) const = default;

 private:
  unsigned bits_ = 0;
};

// Which roles may call a method, given as "/package.Service/Method"; none for one that is unknown.
using CallersOf = std::function<RoleSet(absl::string_view method)>;

// Cheap to copy: copies share what they watch. Thread-safe.
class RpcSecurity {
 public:
  // Plain text, everybody is heard: for a cluster that only loopback reaches, and for tests.
  static RpcSecurity None() { return RpcSecurity(); }
  // Reads the files now, and again every `look_every` (whole seconds, at least one): connections
  // made after a change use what is new. INVALID_ARGUMENT as CheckTlsFiles.
  static absl::StatusOr<RpcSecurity> FromFiles(const TlsFiles& files,
                                               Duration look_every = std::chrono::seconds(10));

  bool none() const { return provider_ == nullptr; }
  // For a channel to a process of this role: any other that answers there is not believed.
  std::shared_ptr<grpc::ChannelCredentials> ChannelTo(Role peer) const;
  // Ends a call with PERMISSION_DENIED before its method hears of it, unless `callers` admits the
  // caller's role. Without a certificate of the authority there is no connection.
  std::shared_ptr<grpc::ServerCredentials> Server(CallersOf callers) const;

 private:
  // Shared by the credentials that it feeds.
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider_;
};

}  // namespace triptych::base
