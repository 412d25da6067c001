#include "scheduler/plan/worker_messages.h"

#include <algorithm>

namespace triptych::scheduler {
namespace {

constexpr Stage kStages[] = {Stage::kEncode, Stage::kPrefill, Stage::kDecode};

}  // namespace

const char* ToString(Stage stage) {
  switch (stage) {
    case Stage::kEncode:
      return "encode";
    case Stage::kPrefill:
      return "prefill";
    case Stage::kDecode:
      return "decode";
  }
  return "unknown";
}

std::string ToString(Roles roles) {
  std::string text;
  for (Stage stage : kStages) {
    if (!roles.has(stage)) continue;
    if (!text.empty()) text += '+';
    text += ToString(stage);
  }
  return text;
}

bool ParseRoles(const std::string& text, Roles* roles) {
  Roles parsed;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    bool known = false;
    for (Stage stage : kStages) {
      if (word != ToString(stage) || parsed.has(stage)) continue;
      parsed.add(stage);
      known = true;
    }
    if (!known) return false;
    begin = end + 1;
  }
  *roles = parsed;
  return true;
}

}  // namespace triptych::scheduler
