#pragma once

// The identity of a model: a digest of everything that decides its output. Peers are paired, grants
// given and caches keyed only within one fingerprint.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::models {

// Digest of the model files in `dir` (config, generation config, tokenizer, preprocessor config,
// every weight shard) and of `numerics`, a text that names the storage types, the page size and the
// arithmetic of the engine. 32 lower-case hexadecimal characters (128 bits). Reads every byte once:
// seconds for a large model. NOT_FOUND when config.json or a shard is missing.
absl::StatusOr<std::string> ModelFingerprint(const std::string& dir, absl::string_view numerics);

}  // namespace triptych::models
