#include "scheduler/cluster/decode_binding.h"

#include "scheduler/cluster/least_work.h"

namespace triptych::scheduler {

Amount DecodeAmount(const WorkerView& worker, const DecodeNeed& need) {
  if (worker.profile.incarnation == need.prefill_worker) return {};
  return {worker.BlocksFor(need.prompt_tokens + 1), 0, 1};
}

Choice ChooseDecodeWorker(const ClusterView& view, const DecodeNeed& need, base::TimePoint now) {
  const auto fit_of = [&](const WorkerView& worker) {
    if (worker.profile.incarnation == need.prefill_worker) return Fit::kAtHome;
    const Amount amount = DecodeAmount(worker, need);
    if (!worker.total().Covers(amount)) return Fit::kNever;
    return worker.ledger.free().Covers(amount) ? Fit::kNow : Fit::kLater;
  };
  return ChooseLeastWork(view, Stage::kDecode, 1, now, fit_of);
}

}  // namespace triptych::scheduler
