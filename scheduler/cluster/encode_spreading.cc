#include "scheduler/cluster/encode_spreading.h"

#include <algorithm>

namespace triptych::scheduler {
namespace {

bool HasBacklogRoom(const WorkerView& worker, const EncodeNeed& need, const ClusterConfig& config) {
  const int32_t tasks = worker.ledger.tasks(Stage::kEncode);
  if (tasks >= worker.profile.max_encodes) return false;
  if (tasks == 0) return true;
  return tasks < config.encoder_backlog_tasks &&
         worker.ledger.cost(Stage::kEncode) + need.patches <= config.encoder_backlog_patches;
}

}  // namespace

Amount EncodeAmount(const WorkerView& worker, const EncodeNeed& need) {
  const bool in_place = worker.profile.incarnation == need.consumer;
  return {0, in_place ? 0 : need.num_tokens, 0};
}

Choice ChooseEncoder(const ClusterView& view, const EncodeNeed& need, const ClusterConfig& config,
                     base::TimePoint now) {
  const auto& workers = view.of(Stage::kEncode);
  Choice choice;
  if (!workers.empty()) choice.otherwise = Choice::Otherwise::kNever;
  double best = 0;
  for (const WorkerView* worker : workers) {
    const Amount amount = EncodeAmount(*worker, need);
    if (worker->profile.max_encodes < 1 || !worker->total().Covers(amount)) continue;
    choice.otherwise = Choice::Otherwise::kWait;
    if (!worker->IsOpen(Stage::kEncode, now)) continue;
    if (!worker->ledger.free().Covers(amount) || !HasBacklogRoom(*worker, need, config)) continue;
    const double seconds = PredictedSeconds(view, *worker, Stage::kEncode, need.patches);
    if (choice.worker != nullptr && seconds >= best) continue;
    choice.worker = worker;
    best = seconds;
  }
  return choice;
}

}  // namespace triptych::scheduler
