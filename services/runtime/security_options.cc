#include "services/runtime/security_options.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace triptych::services {

void SecurityOptions::Declare(base::FlagSet* flags) {
  flags->AddString(&ca, {.name = "tls-ca",
                         .doc = "PEM file of the authority whose certificates are believed; the "
                                "three files are read again when they change"});
  flags->AddString(&cert, {.name = "tls-cert",
                           .doc = "PEM file of the own certificate; its URI names the role, "
                                  "spiffe://triptych/worker for one"});
  flags->AddString(&key, {.name = "tls-key", .doc = "PEM file of its private key"});
  flags->AddBool(&insecure, {.name = "insecure",
                             .doc = "plain text between processes and no certificates; then they "
                                    "listen on loopback alone"});
}

absl::StatusOr<base::RpcSecurity> SecurityOptions::Open(
    const std::vector<std::string>& listen) const {
  const bool some = !ca.empty() || !cert.empty() || !key.empty();
  const bool all = !ca.empty() && !cert.empty() && !key.empty();
  if (insecure ? some : !all) {
    return absl::InvalidArgumentError(
        "want --tls-ca, --tls-cert and --tls-key, or else --insecure");
  }
  if (!insecure) return base::RpcSecurity::FromFiles({.ca = ca, .cert = cert, .key = key});
  for (const std::string& address : listen) {
    if (IsLoopback(address)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--insecure, but ", address, " is not loopback"));
  }
  return base::RpcSecurity::None();
}

bool IsLoopback(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  // Digits and dots alone: 127.evil.example would be a name.
  const bool digits = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "[::1]" || (digits && absl::StartsWith(host, "127."));
}

}  // namespace triptych::services
