#include "services/cli/flag_list.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace triptych::services {
namespace {

// The name of `names` that the word is a flag of; empty otherwise.
absl::string_view FlagName(absl::string_view word, const std::vector<absl::string_view>& names) {
  if (!absl::ConsumePrefix(&word, "--")) return {};
  for (absl::string_view name : names) {
    if (word == name || absl::StartsWith(word, absl::StrCat(name, "="))) return name;
  }
  return {};
}

}  // namespace

absl::StatusOr<SplitArguments> TakeRepeated(int argc, const char* const* argv,
                                            const std::vector<absl::string_view>& names) {
  SplitArguments split;
  bool flags_ended = false;
  for (int i = 0; i < argc; ++i) {
    const absl::string_view word = argv[i];
    flags_ended = flags_ended || word == "--";
    const absl::string_view name =
        flags_ended || i == 0 ? absl::string_view() : FlagName(word, names);
    if (name.empty()) {
      split.rest.push_back(argv[i]);
      continue;
    }
    const size_t prefix = 2 + name.size();
    if (word.size() > prefix) {
      split.repeated.push_back({std::string(name), std::string(word.substr(prefix + 1))});
    } else if (i + 1 < argc) {
      split.repeated.push_back({std::string(name), argv[++i]});
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": want a value"));
    }
  }
  return split;
}

}  // namespace triptych::services
