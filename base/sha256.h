#pragma once

// SHA-256 of a secret, so that what is kept of it is of no use to a reader.

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace triptych::base {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest Sha256(absl::string_view bytes);

// Takes as long whatever differs.
inline bool SameDigest(const Sha256Digest& a, const Sha256Digest& b) {
  uint8_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) different |= static_cast<uint8_t>(a[i] ^ b[i]);
  return different == 0;
}

}  // namespace triptych::base
