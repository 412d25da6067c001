#include "scheduler/cluster/decode_binding.h"

#include "scheduler/cluster/least_work.h"

namespace triptych::scheduler {

Amount DecodeAmount(const WorkerView& worker, const DecodeNeed& need) {
  if (worker.profile.incarnation == need.prefill_worker) return {};
  return {worker.BlocksFor(need.prompt_tokens + 1), 0, 1};
}

int32_t GrowthBlocks(const WorkerView& worker, int32_t headroom_blocks) {
  const int32_t running =
      worker.ledger.tasks(Stage::kDecode) + worker.ledger.tasks(Stage::kPrefill);
  return running == 0 ? 0 : running + headroom_blocks;
}

Choice ChooseDecodeWorker(const ClusterView& view, const DecodeNeed& need, base::TimePoint now) {
  // Where its KV lies already nobody is better.
  const WorkerView* home = view.Find(need.prefill_worker, Stage::kDecode);
  if (home != nullptr && home->IsOpen(Stage::kDecode)) return {home};
  const auto fit_of = [&](const WorkerView& worker) {
    const Amount amount = DecodeAmount(worker, need);
    if (!worker.total().Covers(amount)) return Fit::kNever;
    Amount with_growth = amount;
    with_growth.kv_blocks += GrowthBlocks(worker, need.headroom_blocks);
    const bool room = worker.ledger.free().Covers(with_growth);
    const bool reached = view.links.IsOpen(worker.profile.incarnation, need.prefill_worker, now);
    return room && reached ? Fit::kNow : Fit::kLater;
  };
  return ChooseLeastWork(view, Stage::kDecode, 1, fit_of);
}

}  // namespace triptych::scheduler
