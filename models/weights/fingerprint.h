#pragma once

// The identity of a model, in three parts joined by dots: a digest of its texts, a digest of its
// weights (WeightSource::Digest), and the format that computes with them. Peers are paired, grants
// given and caches keyed only within one fingerprint; a gateway, which opens no weights, knows its
// workers by the first part.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::models {

// Digest of the files beside the weights in `dir` that decide what a model answers: config,
// generation config (where there is one), tokenizer and preprocessor config. 32 lower-case
// hexadecimal characters. NOT_FOUND when one of them is missing.
absl::StatusOr<std::string> TextsDigest(const std::string& dir);

// `format` names storage types and arithmetic, without a dot; not the page size: what peers
// exchange goes by token ranges.
std::string Fingerprint(absl::string_view texts, absl::string_view weights,
                        absl::string_view format);

}  // namespace triptych::models
