#pragma once

// Base64 of RFC 4648, standard alphabet, strict: padding required, no white space, unused bits 0.

#include <string>

#include "absl/strings/string_view.h"

namespace triptych::services {

// Appends the decoded bytes. False, with `*bytes` unspecified, when `text` is not exactly base64.
bool DecodeBase64(absl::string_view text, std::string* bytes);

}  // namespace triptych::services
