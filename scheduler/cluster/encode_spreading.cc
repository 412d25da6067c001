#include "scheduler/cluster/encode_spreading.h"

#include "scheduler/cluster/least_work.h"

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
  return {0, in_place ? 0 : worker.profile.SlotsFor(need.num_tokens), 0};
}

bool FitsInPlace(const WorkerView& worker, const EncodeNeed& need, const ClusterConfig& config) {
  return worker.profile.incarnation == need.consumer && worker.MayTake(Stage::kEncode) &&
         HasBacklogRoom(worker, need, config);
}

Choice ChooseEncoder(const ClusterView& view, const EncodeNeed& need, const ClusterConfig& config,
                     base::TimePoint now) {
  const auto fit_of = [&](const WorkerView& worker) {
    const Amount amount = EncodeAmount(worker, need);
    if (worker.profile.max_encodes < 1 || !worker.total().Covers(amount)) return Fit::kNever;
    const bool room = worker.ledger.free().Covers(amount) &&
                      view.links.IsOpen(worker.profile.incarnation, need.consumer, now);
    return room && HasBacklogRoom(worker, need, config) ? Fit::kNow : Fit::kLater;
  };
  return ChooseLeastWork(view, Stage::kEncode, need.patches, fit_of,
                         view.Find(need.consumer, Stage::kEncode));
}

}  // namespace triptych::scheduler
