#pragma once

// Flags that may be given more than once, in the order in which they came: FlagSet keeps only the
// last of each. Pure.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

struct RepeatedFlag {
  std::string name;  // of those asked for
  std::string value;
};

struct SplitArguments {
  std::vector<RepeatedFlag> repeated;
  std::vector<const char*> rest;  // borrowed from argv, argv[0] included
};

// Takes every `--name value` and `--name=value` of `names` out of argv, up to a `--`.
// INVALID_ARGUMENT for one without a value.
absl::StatusOr<SplitArguments> TakeRepeated(int argc, const char* const* argv,
                                            const std::vector<absl::string_view>& names);

}  // namespace triptych::services
