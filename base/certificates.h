#pragma once

// Certificates of a cluster that makes its own: an authority whose key never leaves this process,
// and what it signs. Who a process is stands in its certificate as a URI, see RoleUri. Also the
// checks that a start makes of files that it was given. No gRPC; any thread.

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::base {

// Who a process of the cluster is to the others; an operator is a person's command.
enum class Role { kGateway, kScheduler, kWorker, kOperator };
inline constexpr Role kRoles[] = {Role::kGateway, Role::kScheduler, Role::kWorker, Role::kOperator};

const char* ToString(Role role);
// The URI among a certificate's alternative names that gives it the role: spiffe://triptych/worker.
std::string RoleUri(Role role);

// Certificate and private key, as PEM.
struct Credentials {
  std::string certificate;
  std::string key;
};

// Keys are of P-256; certificates are good from an hour ago for ten years: they end with the
// authority, which nobody keeps.
class CertificateAuthority {
 public:
  // INTERNAL when the library fails.
  static absl::StatusOr<CertificateAuthority> Make();
  CertificateAuthority(CertificateAuthority&&) noexcept;
  CertificateAuthority& operator=(CertificateAuthority&&) noexcept;
  ~CertificateAuthority();

  const std::string& certificate() const { return certificate_; }
  absl::StatusOr<Credentials> Issue(Role role) const;

 private:
  struct Keys;
  explicit CertificateAuthority(std::unique_ptr<Keys> keys);
  std::unique_ptr<Keys> keys_;
  std::string certificate_;
};

// Paths of PEM files: the authority that all believe, the own certificate and its key.
struct TlsFiles {
  std::string ca, cert, key;
};

// The files can be read, hold what they should, and the key is the certificate's.
// INVALID_ARGUMENT names the file.
absl::Status CheckTlsFiles(const TlsFiles& files);

// The files of `role` in a folder that WriteTlsFolder has filled.
TlsFiles TlsFilesIn(const std::string& folder, Role role);
// Makes `folder`, for this user alone, with credentials for every role. INTERNAL names the path.
absl::Status WriteTlsFolder(const CertificateAuthority& authority, const std::string& folder);

}  // namespace triptych::base
