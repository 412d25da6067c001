#include "scheduler/cluster/request_state.h"

namespace triptych::scheduler {

bool Request::Needs(Stage stage) const {
  if (stage == Stage::kEncode) return !submit.items.empty();
  return stage == Stage::kPrefill || NeedsDecode(prompt_tokens());
}

std::optional<Stage> Request::WaitsFor() const {
  if (std::holds_alternative<InQueue>(state)) return Stage::kPrefill;
  if (std::holds_alternative<AwaitsDecode>(state)) return Stage::kDecode;
  if (const auto* prefill = std::get_if<InPrefill>(&state)) {
    for (const ItemProgress& item : prefill->items) {
      if (!item.landed && !item.encode.has_value()) return Stage::kEncode;
    }
  }
  return std::nullopt;
}

}  // namespace triptych::scheduler
