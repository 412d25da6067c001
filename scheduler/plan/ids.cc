#include "scheduler/plan/ids.h"

#include "absl/strings/str_cat.h"

namespace triptych::scheduler {

std::string ToString(const RequestId& id) {
  return absl::StrCat(absl::Hex(id.gateway.value()), "-", id.number);
}

std::string ToString(const TaskId& id) {
  return absl::StrCat(id.scheduler.term, ".", absl::Hex(id.scheduler.incarnation.value()), ".",
                      id.number);
}

}  // namespace triptych::scheduler
