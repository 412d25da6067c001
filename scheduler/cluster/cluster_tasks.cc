// What workers say of their tasks, and what follows from it.

#include <algorithm>
#include <utility>

#include "scheduler/cluster/cluster_scheduler.h"

namespace triptych::scheduler {
namespace {

// The item whose current producer is `task`, or null.
ItemProgress* ItemOf(RequestState* state, int32_t item) {
  auto* prefilling = std::get_if<InPrefill>(state);
  if (prefilling == nullptr) return nullptr;
  if (item < 0 || item >= static_cast<int32_t>(prefilling->items.size())) return nullptr;
  return &prefilling->items[item];
}

Amount FreeOf(const TaskRefused& refused) {
  return {refused.free_kv_blocks, refused.free_embedding_slots, refused.free_sequences};
}

}  // namespace

const ClusterScheduler::TaskEntry* ClusterScheduler::FindTask(TaskId task,
                                                              Incarnation worker) const {
  auto it = tasks_.find(task);
  return it != tasks_.end() && it->second.worker == worker ? &it->second : nullptr;
}

void ClusterScheduler::OnTask(Incarnation from, const WorkerReport& report, base::TimePoint now) {
  Worker* worker = FindWorker(from);
  const Amount before = worker->view.ledger.free();
  for (int stage = 0; stage < kNumStages; ++stage) {
    worker->load[stage] = report.load[stage];
    worker->view.speed[stage] = {report.load[stage].fixed_seconds,
                                 report.load[stage].seconds_per_unit};
  }
  worker->view.ledger.Report(
      {report.free_kv_blocks, report.free_embedding_slots, report.free_sequences},
      report.handled_sequence);
  worker->handled = std::max(worker->handled, report.handled_sequence);
  worker->releasing.erase(worker->releasing.begin(),
                          worker->releasing.upper_bound(report.handled_sequence));
  if (!before.Covers(worker->view.ledger.free())) worker->pool->dirty = true;
  if (report.draining && !worker->view.draining) {
    // Its supervisor has told it, not this scheduler.
    worker->view.draining = true;
    Reindex(worker, now);
  }
  if (!report.has_inventory) return;
  Reconcile(worker, report, now);
  LoseUnknown(report);
}

void ClusterScheduler::OnTask(Incarnation from, const TaskAccepted& message, base::TimePoint) {
  const TaskEntry* entry = FindTask(message.task, from);
  if (entry == nullptr) return;
  FindWorker(from)->refusals_in_a_row[static_cast<int>(entry->stage)] = 0;
}

void ClusterScheduler::Succeeded(const TaskEntry& entry) {
  FindWorker(entry.worker)->failures_in_a_row[static_cast<int>(entry.stage)] = 0;
}

// What was sent before it closed counts once: many tasks that fail together have one cause.
void ClusterScheduler::BackOff(Worker* worker, Stage stage, int* in_a_row, base::TimePoint now) {
  const int index = static_cast<int>(stage);
  if (worker->view.closed[index]) return;
  const base::Duration wait = std::min(
      config_.first_back_off * (int64_t{1} << std::min(*in_a_row, 16)), config_.longest_back_off);
  ++*in_a_row;
  worker->view.closed_until[index] = now + wait;
  worker->view.closed[index] = true;
  worker->view.Changed();
  reopenings_.insert({worker->view.closed_until[index], worker->view.profile.incarnation});
}

void ClusterScheduler::Reopen(Worker* worker, base::TimePoint now) {
  for (int stage = 0; stage < kNumStages; ++stage) {
    if (worker->view.closed_until[stage] <= now) worker->view.closed[stage] = false;
  }
  worker->view.Changed();
  worker->pool->dirty = true;
}

void ClusterScheduler::OnTask(Incarnation from, const TaskRefused& message, base::TimePoint now) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr) return;
  const TaskEntry entry = *found;
  Worker* worker = FindWorker(from);
  worker->view.ledger.Report(FreeOf(message), entry.sequence);
  BackOff(worker, entry.stage, &worker->refusals_in_a_row[static_cast<int>(entry.stage)], now);
  Request* request = FindRequest(entry.request);
  if (++request->refusals > config_.max_refusals) {
    Fail(entry.request, absl::ResourceExhaustedError("workers have no room for the request"));
    return;
  }
  if (entry.stage == Stage::kEncode) {
    ItemGone(request, entry.item);
  } else if (entry.stage == Stage::kPrefill) {
    // It never pulled: the epoch stays, and so does its place in the queue.
    LeaveQueues(request);
    ReleaseAll(request);
    Enqueue(request);
  } else {
    DecodeGone(request);
  }
}

void ClusterScheduler::OnTask(Incarnation from, const TaskDelivered& message, base::TimePoint) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr) return;
  const TaskEntry entry = *found;
  Succeeded(entry);
  Request* request = FindRequest(entry.request);
  if (entry.stage == Stage::kEncode) LandItem(request, entry.item);
  if (entry.stage == Stage::kDecode) FinishDecode(request);
}

void ClusterScheduler::OnTask(Incarnation from, const ItemLanded& message, base::TimePoint) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr || found->stage != Stage::kPrefill) return;
  LandItem(FindRequest(found->request), message.input.item);
}

void ClusterScheduler::LandItem(Request* request, int32_t index) {
  ItemProgress* item = ItemOf(&request->state, index);
  if (item == nullptr || item->landed) return;
  item->landed = true;
  if (item->encode.has_value()) {
    // Whoever brings the news, its encoder has done its work.
    if (const TaskEntry* entry = FindTask(item->encode->task, item->encode->worker)) {
      Succeeded(*entry);
    }
    PoolOf(*request)->view.links.Succeeded(item->encode->worker,
                                           std::get<InPrefill>(request->state).prefill.worker);
  }
  if (item->encode.has_value()) Release(*std::exchange(item->encode, std::nullopt));
  auto& state = std::get<InPrefill>(request->state);
  if (++state.num_landed == static_cast<int32_t>(state.items.size())) return AllLanded(request);
  // It may have been the one that was to be encoded again.
  if (request->WaitsFor() != Stage::kEncode) PoolOf(*request)->want_encoder.erase(request->rank);
}

void ClusterScheduler::AllLanded(Request* request) {
  Pool* pool = PoolOf(*request);
  pool->want_encoder.erase(request->rank);
  auto state = std::get<InPrefill>(std::move(request->state));
  if (!state.items.empty()) Tell(*request, RequestProgress::Milestone::kItemsEncoded);
  for (ItemProgress& item : state.items) {
    if (item.encode.has_value()) Release(*std::move(item.encode));
  }
  state.prefill.credit.BecomeReady();
  const int32_t covered = state.prefill.prompt_tokens;
  request->state = AwaitsDecode{.prefill = std::move(state.prefill)};
  if (!request->NeedsDecode(covered)) return;
  WantDecode(request);
  pool->dirty = true;
}

void ClusterScheduler::OnTask(Incarnation from, const FirstTokenSampled& message, base::TimePoint) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr || found->stage != Stage::kPrefill) return;
  Succeeded(*found);
  FirstToken(FindRequest(found->request), message.finish);
}

void ClusterScheduler::FirstToken(Request* request, Finish finish) {
  if (std::holds_alternative<InPrefill>(request->state)) AllLanded(request);
  auto* awaiting = std::get_if<AwaitsDecode>(&request->state);
  auto* handing = std::get_if<InHandover>(&request->state);
  if (awaiting == nullptr && handing == nullptr) return;
  bool& sampled = awaiting != nullptr ? awaiting->sampled : handing->sampled;
  PlacedTask& prefill = awaiting != nullptr ? awaiting->prefill : handing->prefill;
  if (!std::exchange(sampled, true)) Tell(*request, RequestProgress::Milestone::kPrefilled);
  prefill.credit.FinishWork();
  PoolOf(*request)->dirty = true;
  if (finish == Finish::kNone) return;
  WantsDecodeNoMore(request);
  if (handing != nullptr) Release(std::move(handing->decode));
  PlacedTask last = std::move(prefill);
  request->state = AtEnd{std::move(last)};
}

void ClusterScheduler::OnTask(Incarnation from, const DecodeStarted& message, base::TimePoint) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr || found->stage != Stage::kDecode) return;
  Succeeded(*found);
  StartDecode(FindRequest(found->request));
}

void ClusterScheduler::StartDecode(Request* request) {
  auto* handing = std::get_if<InHandover>(&request->state);
  if (handing == nullptr) return;
  LinkWorked(*request);
  Release(std::move(handing->prefill));
  PlacedTask decode = std::move(handing->decode);
  request->state = InDecode{std::move(decode)};
  request->decode_since = now_;
}

void ClusterScheduler::FinishDecode(Request* request) {
  StartDecode(request);
  auto* decoding = std::get_if<InDecode>(&request->state);
  if (decoding == nullptr) return;
  PlacedTask last = std::move(decoding->decode);
  last.credit.FinishWork();
  request->state = AtEnd{std::move(last)};
}

void ClusterScheduler::OnTask(Incarnation from, const TaskFailed& message, base::TimePoint now) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr) return;
  const TaskEntry entry = *found;
  Request* request = FindRequest(entry.request);
  // Whoever is asked next needs room for these too. It is placed now, so no queue knows its size.
  SubmitRequest& submit = request->submit;
  submit.tokens_sent =
      std::max(submit.tokens_sent, std::min(message.tokens_sent, submit.max_tokens));
  if (message.preempted) {
    ++request->preemptions;
    ++totals_.preemptions;
    return RestartPrefill(request);
  }
  absl::StatusCode code = message.status.code();
  // A producer that was fenced off is told the same as one whose request is unknown. The gateway
  // itself says that a request is over; a producer behind a fence, of which this scheduler may not
  // have heard, is followed by one of the next epoch.
  const bool fenced_off = code == absl::StatusCode::kNotFound;
  if (fenced_off) code = absl::StatusCode::kAborted;
  if (code == absl::StatusCode::kInternal) {
    if (++request->internal_failures >= config_.max_internal_failures) {
      Fail(entry.request, absl::InternalError("the request failed on several workers"));
      return;
    }
  } else if (code != absl::StatusCode::kUnavailable && code != absl::StatusCode::kAborted) {
    Fail(entry.request, message.status);
    return;
  }
  if (TriedTooOften(request)) return;
  Worker* worker = FindWorker(from);
  const bool out_of_reach = message.peer != Incarnation();
  if (out_of_reach) {
    CloseLink(worker, message.peer, now);
  } else {
    BackOff(worker, entry.stage, &worker->failures_in_a_row[static_cast<int>(entry.stage)], now);
  }
  if (fenced_off && entry.stage != Stage::kEncode) {
    RestartPrefill(request);
  } else if (out_of_reach && entry.stage == Stage::kEncode &&
             !PoolOf(*request)->view.Reaches(message.peer, Stage::kEncode, now)) {
    // No encoder can bring it there; elsewhere one may.
    RestartPrefill(request);
  } else {
    TaskGone(message.task);
  }
}

bool ClusterScheduler::TriedTooOften(Request* request) {
  if (++request->retries <= config_.max_retries) return false;
  Fail(request->submit.request, absl::UnavailableError("the request was tried too often"));
  return true;
}

void ClusterScheduler::OnTask(Incarnation from, const ConsumerUnreachable& message,
                              base::TimePoint now) {
  const TaskEntry* found = FindTask(message.task, from);
  if (found == nullptr || found->stage != Stage::kPrefill) return;
  Request* request = FindRequest(found->request);
  const auto* handing = std::get_if<InHandover>(&request->state);
  if (handing == nullptr || handing->decode.task != message.consumer) return;
  CloseLink(FindWorker(from), message.peer, now);
  if (TriedTooOften(request)) return;
  if (PoolOf(*request)->view.Reaches(from, Stage::kDecode, now)) {
    TaskGone(message.consumer);
  } else {
    // What it has computed can be brought to nobody.
    RestartPrefill(request);
  }
}

void ClusterScheduler::CloseLink(Worker* worker, Incarnation peer, base::TimePoint now) {
  if (FindWorker(peer) == nullptr) return;
  const Incarnation self = worker->view.profile.incarnation;
  reopenings_.insert({worker->pool->view.links.Close(self, peer, now), self});
}

// Its KV has come from the one worker to the other.
void ClusterScheduler::LinkWorked(const Request& request) {
  const auto& handing = std::get<InHandover>(request.state);
  PoolOf(request)->view.links.Succeeded(handing.prefill.worker, handing.decode.worker);
}

void ClusterScheduler::TaskGone(TaskId task, Cause cause) {
  auto it = tasks_.find(task);
  if (it == tasks_.end()) return;
  const TaskEntry entry = it->second;
  Request* request = FindRequest(entry.request);
  if (entry.stage == Stage::kEncode) {
    ItemGone(request, entry.item);
    return;
  }
  if (auto* handing = std::get_if<InHandover>(&request->state);
      handing != nullptr && entry.stage == Stage::kDecode) {
    // Until a first token is known of the epoch stays, so that the prefill which runs under it
    // stays valid. A lost decode that has streamed nevertheless is fenced off by its successor's
    // task.
    const uint32_t raise = handing->sampled ? 1 : 0;
    request->epoch = OutputEpoch(request->epoch.value() + raise);
    DecodeGone(request);
    return;
  }
  RestartPrefill(request, cause);
}

void ClusterScheduler::ItemGone(Request* request, int32_t index) {
  ItemProgress* item = ItemOf(&request->state, index);
  if (item == nullptr || !item->encode.has_value()) return;
  Release(*std::exchange(item->encode, std::nullopt));
  PoolOf(*request)->want_encoder.insert(request->rank);
}

void ClusterScheduler::DecodeGone(Request* request) {
  auto* handing = std::get_if<InHandover>(&request->state);
  if (handing == nullptr) return;
  Release(std::move(handing->decode));
  AwaitsDecode state{.prefill = std::move(handing->prefill), .sampled = handing->sampled};
  request->state = std::move(state);
  WantDecode(request);
}

}  // namespace triptych::scheduler
