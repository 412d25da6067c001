#include "scheduler/cluster/placement.h"

#include <algorithm>

#include "scheduler/cluster/least_work.h"

namespace triptych::scheduler {
namespace {

// A worker that decodes too keeps one sequence free of prefills: were all places held by prompts
// that wait for a decode, none could move.
Amount WithHeadroom(const WorkerView& worker, Amount amount) {
  if (worker.profile.roles.has(Stage::kDecode)) {
    amount.sequences = std::min(2, std::max(1, worker.profile.max_sequences));
  }
  return amount;
}

bool HasBacklogRoom(const WorkerView& worker, const PrefillNeed& need,
                    const ClusterConfig& config) {
  const int64_t backlog = worker.ledger.cost(Stage::kPrefill);
  return backlog == 0 || backlog + need.prompt_tokens <= config.prefill_backlog_tokens;
}

}  // namespace

Amount PrefillAmount(const WorkerView& worker, const PrefillNeed& need) {
  int64_t slots = 0;
  for (const ItemCost& item : need.items) slots += worker.profile.SlotsFor(item.num_tokens);
  return {worker.BlocksFor(need.prompt_tokens),
          static_cast<int32_t>(std::min<int64_t>(slots, INT32_MAX)), 1};
}

Choice ChoosePrefillWorker(const ClusterView& view, const PrefillNeed& need,
                           const ClusterConfig& config, base::TimePoint now) {
  const auto fit_of = [&](const WorkerView& worker) {
    const Amount amount = PrefillAmount(worker, need);
    if (!worker.total().Covers(amount)) return Fit::kNever;
    const bool room = worker.ledger.free().Covers(WithHeadroom(worker, amount));
    return room && HasBacklogRoom(worker, need, config) ? Fit::kNow : Fit::kLater;
  };
  return ChooseLeastWork(view, Stage::kPrefill, need.prompt_tokens, now, fit_of);
}

}  // namespace triptych::scheduler
