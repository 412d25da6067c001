#include "base/certificates.h"

#include <cstdio>

#include "base/config.h"
#include "base/status.h"
#include "services/cli/commands.h"

namespace triptych::services {
namespace {

absl::Status Write(const std::string& folder) {
  ASSIGN_OR_RETURN(const base::CertificateAuthority authority, base::CertificateAuthority::Make());
  return base::WriteTlsFolder(authority, folder);
}

}  // namespace

int RunCertificates(int argc, const char* const* argv) {
  base::FlagSet flags(
      "triptych certificates FOLDER: ca.pem of a new authority, whose key is not kept, and "
      "ROLE.pem, "
      "ROLE.key of each role",
      base::Positional::kKeep);
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  if (flags.positional().size() != 1) {
    std::fprintf(stderr, "triptych certificates: want one folder\n");
    return 2;
  }
  const absl::Status written = Write(flags.positional().front());
  if (written.ok()) return 0;
  std::fprintf(stderr, "triptych certificates: %s\n", std::string(written.message()).c_str());
  return 1;
}

}  // namespace triptych::services
