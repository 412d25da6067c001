#pragma once

// Text files and bounded JSON for the readers of a model directory. Included by .cc files only: the
// JSON type is just declared here.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace triptych::models {

// Largest text file of a model that is read: published tokenizers have up to 35 MB.
inline constexpr int64_t kMaxModelTextBytes = int64_t{128} << 20;
// Deepest nesting of a model's JSON files; published ones have at most 6 levels.
inline constexpr int kMaxJsonDepth = 32;

// The whole file. NOT_FOUND when it cannot be opened, INVALID_ARGUMENT when it is larger than
// kMaxModelTextBytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// Parses an object. INVALID_ARGUMENT, beginning with `what`, when the text is no JSON, no object,
// or nested deeper than kMaxJsonDepth.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view what);

}  // namespace triptych::models
