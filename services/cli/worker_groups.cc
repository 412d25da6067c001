#include "services/cli/worker_groups.h"

#include <algorithm>
#include <array>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status.h"

namespace triptych::services {
namespace {

constexpr std::array<absl::string_view, 3> kStages = {"encode", "prefill", "decode"};

absl::StatusOr<std::string> CanonicalRoles(absl::string_view text) {
  const std::set<absl::string_view> named = absl::StrSplit(text, '+');
  std::vector<absl::string_view> ordered;
  for (absl::string_view stage : kStages) {
    if (named.count(stage) > 0) ordered.push_back(stage);
  }
  if (ordered.size() != named.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--workers: \"", text, "\" is not made of encode, prefill, decode"));
  }
  return absl::StrJoin(ordered, "+");
}

absl::StatusOr<WorkerGroup> ParseGroup(absl::string_view text) {
  const std::vector<absl::string_view> sides = absl::StrSplit(text, '=');
  WorkerGroup group;
  ASSIGN_OR_RETURN(group.roles, CanonicalRoles(sides[0]));
  const bool counted = sides.size() == 2 && absl::SimpleAtoi(sides[1], &group.count);
  if (sides.size() > 1 && (!counted || group.count < 1 || group.count > kMaxWorkersOfGroup)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--workers: \"", text, "\": want ROLES=1..", kMaxWorkersOfGroup));
  }
  return group;
}

}  // namespace

absl::StatusOr<std::vector<WorkerGroup>> ParseWorkers(absl::string_view text) {
  std::vector<WorkerGroup> groups;
  std::set<std::string> seen, covered;
  for (absl::string_view word : absl::StrSplit(text, ',')) {
    ASSIGN_OR_RETURN(WorkerGroup group, ParseGroup(word));
    if (!seen.insert(group.roles).second) {
      return absl::InvalidArgumentError(absl::StrCat("--workers: ", group.roles, " comes twice"));
    }
    for (absl::string_view stage : absl::StrSplit(group.roles, '+')) covered.emplace(stage);
    groups.push_back(std::move(group));
  }
  for (absl::string_view stage : kStages) {
    if (covered.count(std::string(stage)) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--workers: nobody runs ", stage));
    }
  }
  return groups;
}

}  // namespace triptych::services
