#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace triptych::base {

Sha256Digest Sha256(absl::string_view bytes) {
  Sha256Digest digest{};
  CHECK_EQ(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr),
           1);
  return digest;
}

}  // namespace triptych::base
