#include "scheduler/cluster/request_state.h"

namespace triptych::scheduler {

int32_t Request::item_tokens() const {
  int32_t sum = 0;
  for (const ItemCost& item : submit.items) sum += item.num_tokens;
  return sum;
}

bool Request::Needs(Stage stage) const {
  if (stage == Stage::kEncode) return !submit.items.empty();
  return stage == Stage::kPrefill || NeedsDecode();
}

}  // namespace triptych::scheduler
