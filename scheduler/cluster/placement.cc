#include "scheduler/cluster/placement.h"

#include <algorithm>

#include "scheduler/cluster/decode_binding.h"
#include "scheduler/cluster/least_work.h"

namespace triptych::scheduler {
namespace {

// A worker that decodes too keeps one sequence free of prefills: were all places held by prompts
// that wait for a decode, none could move. And it keeps room for what is there to grow.
Amount WithHeadroom(const WorkerView& worker, const PrefillNeed& need, Amount amount) {
  if (!worker.profile.roles.has(Stage::kDecode)) return amount;
  amount.sequences = std::min(2, std::max(1, worker.profile.max_sequences));
  amount.kv_blocks += GrowthBlocks(worker, need.headroom_blocks);
  return amount;
}

bool HasBacklogRoom(const WorkerView& worker, const PrefillNeed& need,
                    const ClusterConfig& config) {
  const int64_t backlog =
      worker.ledger.cost(Stage::kPrefill) + worker.ledger.waiting(Stage::kPrefill);
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
    const bool room = worker.ledger.free().Covers(WithHeadroom(worker, need, amount));
    if (!room || !HasBacklogRoom(worker, need, config)) return Fit::kLater;
    const Incarnation self = worker.profile.incarnation;
    const bool reached = view.Reaches(self, Stage::kDecode, now) &&
                         (need.items.empty() || view.Reaches(self, Stage::kEncode, now));
    return reached ? Fit::kNow : Fit::kLater;
  };
  return ChooseLeastWork(view, Stage::kPrefill, need.prompt_tokens, fit_of);
}

}  // namespace triptych::scheduler
