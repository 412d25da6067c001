#include "scheduler/cluster/placement.h"

#include <algorithm>

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
  return {worker.BlocksFor(need.prompt_tokens), need.item_tokens, 1};
}

Choice ChoosePrefillWorker(const ClusterView& view, const PrefillNeed& need,
                           const ClusterConfig& config, base::TimePoint now) {
  const auto& workers = view.of(Stage::kPrefill);
  Choice choice;
  if (!workers.empty()) choice.otherwise = Choice::Otherwise::kNever;
  double best = 0;
  for (const WorkerView* worker : workers) {
    const Amount amount = PrefillAmount(*worker, need);
    if (!worker->total().Covers(amount)) continue;
    choice.otherwise = Choice::Otherwise::kWait;
    if (!worker->IsOpen(Stage::kPrefill, now)) continue;
    if (!worker->ledger.free().Covers(WithHeadroom(*worker, amount))) continue;
    if (!HasBacklogRoom(*worker, need, config)) continue;
    const double seconds = PredictedSeconds(view, *worker, Stage::kPrefill, need.prompt_tokens);
    if (choice.worker != nullptr && seconds >= best) continue;
    choice.worker = worker;
    best = seconds;
  }
  return choice;
}

}  // namespace triptych::scheduler
