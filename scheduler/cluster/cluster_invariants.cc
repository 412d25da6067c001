// What must hold between any two events. Tests call it; production does not: it looks at
// everything.

#include "base/check.h"
#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {

void ClusterScheduler::CheckInvariants() const {
  size_t placed = 0;
  QueueCost queued;
  std::map<const Pool*, size_t> in_lanes, want_encoder, want_decode;
  for (const auto& [id, request] : requests_) {
    CHECK_TRUE(request->submit.request == id && request->rank.request == id);
    CHECK_TRUE(gateways_.at(id.gateway).requests.contains(id));
    const Pool* pool = pools_.at(request->submit.fingerprint).get();
    const bool waits = std::holds_alternative<InQueue>(request->state);
    CHECK_EQ(request->waiting, waits);
    if (waits) {
      const auto& lane = request->submit.items.empty() ? pool->text_only : pool->with_items;
      CHECK_EQ(lane.contains(request->rank) + pool->aside.contains(request->rank), 1);
      queued += CostOf(request->submit);
      ++in_lanes[pool];
    }
    const bool wants_encoder = request->WaitsFor() == Stage::kEncode;
    CHECK_EQ(pool->want_encoder.contains(request->rank), wants_encoder);
    if (wants_encoder) ++want_encoder[pool];
    const auto* awaiting = std::get_if<AwaitsDecode>(&request->state);
    if (awaiting != nullptr && request->NeedsDecode(awaiting->prefill.prompt_tokens)) {
      auto home = pool->want_decode_at_home.find(awaiting->prefill.worker);
      const bool at_home =
          home != pool->want_decode_at_home.end() && home->second.contains(request->rank);
      CHECK_EQ(pool->want_decode.contains(request->rank) + at_home, 1);
      ++want_decode[pool];
    }
    ForEachTask(*request, [&](const PlacedTask& task) {
      ++placed;
      const auto entry = tasks_.find(task.task);
      CHECK_TRUE(entry != tasks_.end() && entry->second.request == id);
      CHECK_TRUE(workers_.at(task.worker)->tasks.contains(task.task));
    });
  }
  CHECK_EQ(placed, tasks_.size());
  CHECK_TRUE(queued == queued_);
  for (const auto& [name, pool] : pools_) {
    const Pool* p = pool.get();
    CHECK_EQ(p->with_items.size() + p->text_only.size() + p->aside.size(), in_lanes[p]);
    CHECK_EQ(p->want_encoder.size(), want_encoder[p]);
    size_t decodes = p->want_decode.size();
    for (const auto& [worker, ranks] : p->want_decode_at_home) decodes += ranks.size();
    CHECK_EQ(decodes, want_decode[p]);
  }
  size_t held = 0;
  for (const auto& [incarnation, worker] : workers_) {
    held += worker->tasks.size();
    CHECK_EQ(static_cast<size_t>(worker->view.ledger.tasks()), worker->tasks.size());
    for (const auto& [key, task] : worker->unclaimed) {
      CHECK_TRUE(unclaimed_at_.at(key.first).contains(incarnation));
    }
  }
  CHECK_EQ(held, tasks_.size());
  CHECK_TRUE(recovering_ || awaited_peers_.empty());
  CHECK_LE(deadlines_.size(), requests_.size());
}

}  // namespace triptych::scheduler
