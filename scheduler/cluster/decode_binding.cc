#include "scheduler/cluster/decode_binding.h"

namespace triptych::scheduler {

Amount DecodeAmount(const WorkerView& worker, const DecodeNeed& need) {
  if (worker.profile.incarnation == need.prefill_worker) return {};
  return {worker.BlocksFor(need.prompt_tokens + 1), 0, 1};
}

Choice ChooseDecodeWorker(const ClusterView& view, const DecodeNeed& need, base::TimePoint now) {
  const auto& workers = view.of(Stage::kDecode);
  Choice choice;
  if (!workers.empty()) choice.otherwise = Choice::Otherwise::kNever;
  double best = 0;
  for (const WorkerView* worker : workers) {
    const Amount amount = DecodeAmount(*worker, need);
    if (!worker->total().Covers(amount)) continue;
    choice.otherwise = Choice::Otherwise::kWait;
    if (!worker->IsOpen(Stage::kDecode, now) || !worker->ledger.free().Covers(amount)) continue;
    if (worker->profile.incarnation == need.prefill_worker) return {worker};
    const double seconds = PredictedSeconds(view, *worker, Stage::kDecode, 1);
    if (choice.worker != nullptr && seconds >= best) continue;
    choice.worker = worker;
    best = seconds;
  }
  return choice;
}

}  // namespace triptych::scheduler
