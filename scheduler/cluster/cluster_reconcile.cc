// Inventories heal what messages have lost; recovery takes over what an earlier scheduler began.

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {

struct ClusterScheduler::Found {
  Incarnation worker;
  TaskReport report;
  bool going = false;
};

void ClusterScheduler::Reconcile(Worker* worker, const WorkerReport& report, base::TimePoint now) {
  absl::flat_hash_set<TaskId> present;
  for (const TaskReport& task : report.tasks) present.insert(task.task);
  std::vector<TaskId> missing;
  for (TaskId task : worker->tasks) {
    TaskEntry& entry = tasks_.at(task);
    // An assignment that it had not handled yet cannot show; a finished task need not.
    if (present.contains(task)) entry.unheard = false;
    if (entry.sequence > report.handled_sequence || present.contains(task)) continue;
    if (std::holds_alternative<AtEnd>(FindRequest(entry.request)->state)) continue;
    missing.push_back(task);
  }
  for (TaskId task : missing) {
    auto entry = tasks_.find(task);
    if (entry == tasks_.end()) continue;  // went with another task of its request
    const RequestId id = entry->second.request;
    if (entry->second.unheard) {
      TaskGone(task, Cause::kNeverBegun);
    } else if (!TriedTooOften(FindRequest(id))) {
      TaskGone(task);
    }
  }
  for (const TaskReport& task : report.tasks) {
    const TaskEntry* entry = FindTask(task.task, worker->view.profile.incarnation);
    if (entry == nullptr) continue;
    const TaskEntry known = *entry;
    Follow(known, task);
    if (known.stage == Stage::kPrefill && tasks_.contains(task.task)) {
      TellAgain(known, task, report.handled_sequence);
    }
  }
  NoteUnclaimed(worker, report, now);
}

// Recovery waits for those whom a worker exchanges with. Whoever is not known after it died under
// an earlier scheduler, which has not told everybody.
void ClusterScheduler::LoseUnknown(const WorkerReport& report) {
  for (Incarnation peer : report.peers) {
    if (workers_.contains(peer) || gateways_.contains(peer)) continue;
    if (recovering_) {
      awaited_peers_.insert(peer);
    } else {
      actions_.emplace_back(DropPeer{peer, DropPeer::Why::kLost});
    }
  }
}

// What the worker says is true, even where the message that would have told it was lost.
void ClusterScheduler::Follow(const TaskEntry& entry, const TaskReport& report) {
  Request* request = FindRequest(entry.request);
  if (entry.stage == Stage::kPrefill) {
    for (int32_t item : report.items_landed) LandItem(request, item);
    const auto* handing = std::get_if<InHandover>(&request->state);
    const auto* awaiting = std::get_if<AwaitsDecode>(&request->state);
    const bool sampled =
        (handing != nullptr && handing->sampled) || (awaiting != nullptr && awaiting->sampled);
    if (report.state == TaskState::kDelivered && !sampled) FirstToken(request, report.finish);
  } else if (entry.stage == Stage::kDecode && report.state == TaskState::kRunning) {
    // It has its KV: nobody else needs the producer's.
    const auto* handing = std::get_if<InHandover>(&request->state);
    if (handing != nullptr && handing->sampled) StartDecode(request);
  }
}

// Where a worker's table still differs from ours although it has handled the message that would
// have changed it, or that message went with an old stream, it is told again.
void ClusterScheduler::TellAgain(const TaskEntry& entry, const TaskReport& report,
                                 uint64_t handled_sequence) {
  Request* request = FindRequest(entry.request);
  if (request == nullptr) return;
  Worker* worker = FindWorker(entry.worker);
  if (auto* state = std::get_if<InPrefill>(&request->state)) {
    absl::flat_hash_set<TaskId> expected;
    for (const InputProducer& input : report.inputs) expected.insert(input.producer);
    for (size_t item = 0; item < state->items.size(); ++item) {
      ItemProgress& progress = state->items[item];
      if (!progress.encode.has_value() || progress.told > handled_sequence) continue;
      if (expected.contains(progress.encode->task)) continue;
      Send(worker, Rebind{report.task, {static_cast<int32_t>(item), progress.encode->task}});
      progress.told = worker->sequence;
    }
  } else if (auto* state = std::get_if<InHandover>(&request->state)) {
    if (state->told > handled_sequence || report.consumer == state->decode.task) return;
    const PeerAddress consumer = FindWorker(state->decode.worker)->address();
    Send(worker, BindConsumer{report.task, state->decode.task, consumer});
    state->told = worker->sequence;
  }
}

// The worker has a new stream: what was sent on the old one has been handled or is lost.
void ClusterScheduler::ForgetSequences(Worker* worker) {
  worker->releasing.clear();
  for (TaskId task : worker->tasks) {
    TaskEntry& entry = tasks_.at(task);
    entry.unheard = entry.sequence > worker->handled;
    entry.sequence = 0;
    if (entry.stage != Stage::kPrefill) continue;
    Request* request = FindRequest(entry.request);
    if (auto* state = std::get_if<InPrefill>(&request->state)) {
      for (ItemProgress& item : state->items) item.told = 0;
    } else if (auto* state = std::get_if<InHandover>(&request->state)) {
      state->told = 0;
    }
  }
  worker->sequence = 0;
  worker->handled = 0;
}

void ClusterScheduler::NoteUnclaimed(Worker* worker, const WorkerReport& report,
                                     base::TimePoint now) {
  auto before = std::exchange(worker->unclaimed, {});
  for (const auto& [key, task] : before) NoLongerUnclaimed(key.first, worker);
  absl::flat_hash_set<TaskId> going;
  for (const auto& [sequence, task] : worker->releasing) going.insert(task);
  for (const TaskReport& task : report.tasks) {
    if (tasks_.contains(task.task)) continue;
    const std::pair key(task.request, task.task);
    auto old = before.find(key);
    base::TimePoint release_at =
        old == before.end() ? now + config_.unclaimed_grace : old->second.release_at;
    // What this scheduler has given up itself, nobody else will claim: the release was lost.
    const bool own = task.task.scheduler == id_ && !going.contains(task.task);
    if (old == before.end() && own) release_at = now;
    worker->unclaimed[key] = {task, release_at, going.contains(task.task)};
    unclaimed_at_[key.first].insert(worker->view.profile.incarnation);
  }
}

void ClusterScheduler::NoLongerUnclaimed(RequestId request, const Worker* worker) {
  auto it = unclaimed_at_.find(request);
  if (it == unclaimed_at_.end()) return;
  it->second.erase(worker->view.profile.incarnation);
  if (it->second.empty()) unclaimed_at_.erase(it);
}

void ClusterScheduler::ReleaseUnclaimed(base::TimePoint now) {
  for (auto& [incarnation, worker] : workers_) {
    for (auto& [key, unclaimed] : worker->unclaimed) {
      if (unclaimed.release_at > now) continue;
      SendRelease(worker.get(), unclaimed.report.task);
      unclaimed.release_at = now + config_.unclaimed_grace;
    }
  }
}

// Over when everybody has come whom a hello has named; or after a time, which is short where nobody
// has ever obeyed a scheduler: a fresh gateway among others knows of nobody.
void ClusterScheduler::CheckRecovery(base::TimePoint now) {
  if (!recovering_) return;
  const bool all_here = peers_named_ && awaited_peers_.empty();
  if (all_here || RecoveryDeadline() <= now) EndRecovery(now);
}

base::TimePoint ClusterScheduler::RecoveryDeadline() const {
  if (!recovering_ || first_hello_ == base::kNever) return base::kNever;
  const bool fresh = all_fresh_ && !gateways_.empty();
  return first_hello_ +
         (fresh ? std::min(config_.fresh_wait, config_.recovery_wait) : config_.recovery_wait);
}

void ClusterScheduler::EndRecovery(base::TimePoint now) {
  recovering_ = false;
  // Who has not come by now has been away for too long, and died unseen more likely than not.
  for (Incarnation peer : std::exchange(awaited_peers_, {})) {
    actions_.emplace_back(DropPeer{peer, DropPeer::Why::kLost});
  }
  for (auto& [fingerprint, pool] : pools_) {
    pool->dirty = true;
    for (base::TimePoint& since : pool->missing_since) {
      if (since != base::kNever) since = now;
    }
  }
  for (auto& [incarnation, worker] : workers_) {
    for (auto& [key, unclaimed] : worker->unclaimed) {
      unclaimed.release_at = now + config_.unclaimed_grace;
    }
  }
  std::map<Rank, Request*> waiting;
  for (auto& [id, request] : requests_) waiting.emplace(request->rank, request.get());
  for (auto& [rank, request] : waiting) Claim(request);
}

std::vector<ClusterScheduler::Found> ClusterScheduler::TakeUnclaimed(RequestId id) {
  std::vector<Found> found;
  auto at = unclaimed_at_.find(id);
  if (at == unclaimed_at_.end()) return found;
  for (Incarnation incarnation : at->second) {
    auto& unclaimed = FindWorker(incarnation)->unclaimed;
    auto it = unclaimed.lower_bound({id, TaskId()});
    while (it != unclaimed.end() && it->first.first == id) {
      found.push_back({incarnation, std::move(it->second.report), it->second.going});
      it = unclaimed.erase(it);
    }
  }
  unclaimed_at_.erase(at);
  return found;
}

// Gives a queued request what workers still have of it; what is of no use is released.
void ClusterScheduler::Claim(Request* request) {
  std::vector<Found> found = TakeUnclaimed(request->submit.request);
  OutputEpoch highest = request->epoch;
  for (const Found& task : found) highest = std::max(highest, task.report.epoch);
  request->epoch = highest;
  if (!Adopt(request, &found) && (request->resubmitted || !found.empty())) {
    // A producer that nobody has told us of may still stream under that epoch.
    request->epoch = OutputEpoch(highest.value() + 1);
  }
  for (const Found& task : found) {
    Worker* worker = FindWorker(task.worker);
    if (!task.going && !tasks_.contains(task.report.task)) SendRelease(worker, task.report.task);
  }
}

bool ClusterScheduler::Adopt(Request* request, std::vector<Found>* found) {
  const Found* prefill = nullptr;
  for (const Found& task : *found) {
    const TaskReport& report = task.report;
    // Two workers, or two requests, that claim one task: the first has it.
    if (task.going || tasks_.contains(report.task)) continue;
    const bool current = report.epoch == request->epoch;
    if (report.stage == Stage::kDecode && report.state == TaskState::kRunning && current) {
      Dequeue(request);
      request->state = InDecode{AdoptTask(request, task)};
      return true;
    }
    // Kept KV is good under any epoch; a prefill that runs must be allowed to stream, and so must
    // one whose first token is the last.
    const bool covers_prompt = report.prompt_tokens >= request->submit.prompt_tokens &&
                               report.prompt_tokens <= request->prompt_tokens();
    const bool kept = report.state == TaskState::kDelivered && report.finish == Finish::kNone;
    if (report.stage != Stage::kPrefill || !covers_prompt || !(kept || current)) continue;
    if (prefill == nullptr || report.epoch > prefill->report.epoch) prefill = &task;
  }
  if (prefill == nullptr) return false;
  Dequeue(request);
  AdoptPrefill(request, *prefill, *found);
  return true;
}

void ClusterScheduler::AdoptPrefill(Request* request, const Found& prefill,
                                    const std::vector<Found>& found) {
  InPrefill state;
  state.prefill = AdoptTask(request, prefill);
  state.items.resize(request->submit.items.size());
  const auto count = static_cast<int32_t>(state.items.size());
  for (int32_t item : prefill.report.items_landed) {
    if (item < 0 || item >= count || state.items[item].landed) continue;
    state.items[item].landed = true;
    ++state.num_landed;
  }
  for (const InputProducer& input : prefill.report.inputs) {
    if (input.item < 0 || input.item >= count || state.items[input.item].landed) continue;
    for (const Found& task : found) {
      const bool undelivered = task.report.state != TaskState::kDelivered;
      if (task.going || tasks_.contains(task.report.task)) continue;
      if (task.report.task != input.producer || task.report.item != input.item) continue;
      if (task.report.stage != Stage::kEncode || !undelivered) continue;
      if (!state.items[input.item].encode.has_value()) {
        state.items[input.item].encode = AdoptTask(request, task);
      }
    }
  }
  state.prefill.prompt_tokens = prefill.report.prompt_tokens;
  const bool sampled = prefill.report.state == TaskState::kDelivered;
  const bool all_landed = state.num_landed == count;
  request->state = std::move(state);
  if (sampled) {
    // The decode that it was pushed to may live on where nobody has heard of it.
    const uint32_t raise = prefill.report.finish == Finish::kNone ? 1 : 0;
    request->epoch = OutputEpoch(request->epoch.value() + raise);
    FirstToken(request, prefill.report.finish);
  } else if (all_landed) {
    AllLanded(request);
  } else if (request->WaitsFor() == Stage::kEncode) {
    PoolOf(*request)->want_encoder.insert(request->rank);
  }
}

PlacedTask ClusterScheduler::AdoptTask(Request* request, const Found& found) {
  Worker* worker = FindWorker(found.worker);
  const TaskReport& report = found.report;
  int64_t cost = 1;
  if (report.stage == Stage::kPrefill) cost = report.prompt_tokens;
  if (report.stage == Stage::kEncode) cost = request->submit.items[report.item].patches;
  PlacedTask task{.task = report.task, .worker = found.worker, .epoch = report.epoch};
  task.credit = worker->view.ledger.Reserve(report.stage, Amount(), cost, 0);
  worker->tasks.insert(report.task);
  tasks_[report.task] = {.request = request->submit.request,
                         .stage = report.stage,
                         .item = report.item,
                         .worker = found.worker,
                         .epoch = report.epoch};
  return task;
}

}  // namespace triptych::scheduler
