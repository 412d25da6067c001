// Work meets workers: late, and in one move.

#include <algorithm>
#include <utility>

#include "scheduler/cluster/cluster_scheduler.h"
#include "scheduler/cluster/decode_binding.h"
#include "scheduler/cluster/encode_spreading.h"
#include "scheduler/cluster/placement.h"

namespace triptych::scheduler {
namespace {

bool ComesBefore(const WaitingQueue::Entry& a, const WaitingQueue::Entry& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
}

EncodeNeed NeedOf(const ItemCost& item, Incarnation consumer) {
  return {.patches = item.patches, .num_tokens = item.num_tokens, .consumer = consumer};
}

int64_t CostIn(Stage stage, const Request& request, int32_t item) {
  if (stage == Stage::kEncode) return request.submit.items[item].patches;
  return stage == Stage::kPrefill ? request.prompt_tokens() : 1;
}

bool HasLocalDecodes(const ClusterView& view) {
  const auto& workers = view.of(Stage::kDecode);
  return std::any_of(workers.begin(), workers.end(), [](const WorkerView* worker) {
    return worker->profile.roles.has(Stage::kPrefill);
  });
}

constexpr char kTooLarge[] = "no worker that is left is large enough";

}  // namespace

void ClusterScheduler::Send(Worker* worker, SchedulerToWorker message) {
  ++worker->sequence;
  actions_.emplace_back(ToWorker{worker->view.profile.incarnation, std::move(message)});
}

void ClusterScheduler::SendRelease(Worker* worker, TaskId task) {
  Send(worker, ReleaseTask{task});
  worker->releasing[worker->sequence] = task;
}

PlacedTask ClusterScheduler::Assign(const Request& request, Stage stage, int32_t item,
                                    Worker* worker, const Amount& need) {
  PlacedTask placed;
  placed.task = {id_, next_task_++};
  placed.worker = worker->view.profile.incarnation;
  placed.epoch = request.epoch;
  // The assignment is the next message to this worker.
  const uint64_t sequence = worker->sequence + 1;
  placed.credit = worker->view.ledger.Reserve(stage, need, CostIn(stage, request, item), sequence);
  worker->tasks.insert(placed.task);
  tasks_[placed.task] = {request.submit.request, stage,    item,
                         placed.worker,          sequence, placed.epoch};
  return placed;
}

void ClusterScheduler::Place(base::TimePoint now) {
  if (recovering_) return;
  for (auto& [fingerprint, pool] : pools_) {
    if (std::exchange(pool->dirty, false)) PlaceIn(pool.get(), now);
    pool->dirty = false;
  }
}

void ClusterScheduler::PlaceIn(Pool* pool, base::TimePoint now) {
  // What is nearest to its end goes first; a prompt without items may go through all three at once.
  BindDecodes(pool, now);
  BindEncoders(pool, now);
  PlaceQueued(pool, now);
  BindDecodes(pool, now);
}

void ClusterScheduler::PlaceQueued(Pool* pool, base::TimePoint now) {
  bool encoders_full = false;
  while (true) {
    std::optional<WaitingQueue::Entry> next = pool->text_only.Front();
    if (!encoders_full) {
      const std::optional<WaitingQueue::Entry> other = pool->with_items.Front();
      if (other.has_value() && (!next.has_value() || ComesBefore(*other, *next))) next = other;
    }
    if (!next.has_value()) return;
    const Outcome outcome = TryPrefill(pool, FindRequest(next->request), now);
    // Nobody overtakes what waits for memory, or a large prompt would never get it.
    if (outcome == Outcome::kNoRoom) return;
    if (outcome == Outcome::kNoEncoder) encoders_full = true;
  }
}

ClusterScheduler::Outcome ClusterScheduler::TryPrefill(Pool* pool, Request* request,
                                                       base::TimePoint now) {
  const RequestId id = request->submit.request;
  const PrefillNeed need{request->prompt_tokens(), request->submit.items};
  const Choice choice = ChoosePrefillWorker(pool->view, need, config_, now);
  if (choice.worker == nullptr) {
    if (choice.otherwise == Choice::Otherwise::kWait) return Outcome::kNoRoom;
    Fail(id, absl::UnavailableError(kTooLarge));
    return Outcome::kPlaced;
  }
  Worker* worker = FindWorker(choice.worker->profile.incarnation);
  const std::vector<ItemCost>& items = request->submit.items;
  if (!items.empty()) {
    const EncodeNeed first = NeedOf(items[0], worker->view.profile.incarnation);
    const Choice encoder = ChooseEncoder(pool->view, first, config_, now);
    if (encoder.worker == nullptr) {
      if (encoder.otherwise == Choice::Otherwise::kWait) return Outcome::kNoEncoder;
      Fail(id, absl::UnavailableError(kTooLarge));
      return Outcome::kPlaced;
    }
  }
  (items.empty() ? pool->text_only : pool->with_items).Take();
  Dequeue(request);
  PlacePrefill(pool, request, worker, now);
  return Outcome::kPlaced;
}

void ClusterScheduler::PlacePrefill(Pool* pool, Request* request, Worker* worker,
                                    base::TimePoint now) {
  const SubmitRequest& submit = request->submit;
  const PrefillNeed need{request->prompt_tokens(), submit.items};
  InPrefill state;
  state.prefill = Assign(*request, Stage::kPrefill, -1, worker, PrefillAmount(worker->view, need));
  state.prefill.prompt_tokens = need.prompt_tokens;
  state.items.resize(submit.items.size());
  AssignPrefill assign{.task = state.prefill.task,
                       .request = submit.request,
                       .gateway = gateways_.at(submit.request.gateway).address(),
                       .epoch = request->epoch,
                       .prompt_tokens = need.prompt_tokens};
  for (const ItemCost& item : submit.items) assign.item_tokens.push_back(item.num_tokens);
  Send(worker, std::move(assign));
  request->state = std::move(state);
  Tell(*request, RequestProgress::Milestone::kPlaced);
  if (submit.items.empty()) {
    AllLanded(request);
  } else if (!BindEncodersOf(pool, request, now)) {
    pool->want_encoder.insert(TurnOf(*request));
  }
}

void ClusterScheduler::Tell(const Request& request, RequestProgress::Milestone milestone) {
  const RequestId id = request.submit.request;
  actions_.emplace_back(ToGateway{id.gateway, RequestProgress{id, milestone}});
}

void ClusterScheduler::BindEncoders(Pool* pool, base::TimePoint now) {
  while (!pool->want_encoder.empty()) {
    const RequestId id = pool->want_encoder.begin()->request;
    if (!BindEncodersOf(pool, FindRequest(id), now)) return;
  }
}

// False when an item of it has to wait longer.
bool ClusterScheduler::BindEncodersOf(Pool* pool, Request* request, base::TimePoint now) {
  auto& state = std::get<InPrefill>(request->state);
  for (size_t item = 0; item < state.items.size(); ++item) {
    if (state.items[item].landed || state.items[item].encode.has_value()) continue;
    const EncodeNeed need = NeedOf(request->submit.items[item], state.prefill.worker);
    const Choice choice = ChooseEncoder(pool->view, need, config_, now);
    if (choice.worker == nullptr) {
      if (choice.otherwise == Choice::Otherwise::kWait) return false;
      Fail(request->submit.request, absl::UnavailableError(kTooLarge));
      return true;
    }
    Worker* encoder = FindWorker(choice.worker->profile.incarnation);
    AssignItem(request, static_cast<int32_t>(item), encoder, EncodeAmount(encoder->view, need));
  }
  pool->want_encoder.erase(TurnOf(*request));
  return true;
}

void ClusterScheduler::AssignItem(Request* request, int32_t item, Worker* encoder,
                                  const Amount& need) {
  auto& state = std::get<InPrefill>(request->state);
  const SubmitRequest& submit = request->submit;
  Worker* consumer = FindWorker(state.prefill.worker);
  PlacedTask encode = Assign(*request, Stage::kEncode, item, encoder, need);
  Send(encoder, AssignEncode{.task = encode.task,
                             .request = submit.request,
                             .gateway = gateways_.at(submit.request.gateway).address(),
                             .item = item,
                             .num_tokens = submit.items[item].num_tokens,
                             .patches = submit.items[item].patches,
                             .consumer = state.prefill.task,
                             .consumer_worker = consumer->address()});
  Send(consumer, Rebind{state.prefill.task, {item, encode.task}});
  state.items[item].encode = std::move(encode);
  state.items[item].told = consumer->sequence;
}

void ClusterScheduler::BindDecodes(Pool* pool, base::TimePoint now) {
  bool full = false;
  for (auto next = pool->want_decode.begin(); next != pool->want_decode.end();) {
    Request* request = FindRequest((next++)->request);
    const PlacedTask& prefill = std::get<AwaitsDecode>(request->state).prefill;
    const DecodeNeed need{prefill.prompt_tokens, prefill.worker};
    const Choice choice = ChooseDecodeWorker(pool->view, need, now);
    if (choice.worker == nullptr && choice.otherwise == Choice::Otherwise::kNever) {
      Fail(request->submit.request, absl::UnavailableError(kTooLarge));
      continue;
    }
    // Nobody overtakes one that waits for room, but those who need none: their KV lies with a
    // decode worker already, and what it holds is of no use to anybody else.
    const bool local =
        choice.worker != nullptr && choice.worker->profile.incarnation == prefill.worker;
    if (choice.worker != nullptr && (local || !full)) {
      Worker* worker = FindWorker(choice.worker->profile.incarnation);
      BindDecode(request, worker, DecodeAmount(worker->view, need));
    } else if (!std::exchange(full, true) && !HasLocalDecodes(pool->view)) {
      return;
    }
  }
}

void ClusterScheduler::BindDecode(Request* request, Worker* worker, const Amount& need) {
  PoolOf(*request)->want_decode.erase(TurnOf(*request));
  auto awaiting = std::get<AwaitsDecode>(std::move(request->state));
  const RequestId id = request->submit.request;
  Worker* producer = FindWorker(awaiting.prefill.worker);
  InHandover state{.prefill = std::move(awaiting.prefill), .sampled = awaiting.sampled};
  state.decode = Assign(*request, Stage::kDecode, -1, worker, need);
  Send(worker, AssignDecode{.task = state.decode.task,
                            .request = id,
                            .gateway = gateways_.at(id.gateway).address(),
                            .epoch = request->epoch,
                            .prompt_tokens = state.prefill.prompt_tokens,
                            .producer = state.prefill.task,
                            .producer_worker = producer->address()});
  Send(producer, BindConsumer{state.prefill.task, state.decode.task, worker->address()});
  state.told = producer->sequence;
  request->state = std::move(state);
  Tell(*request, RequestProgress::Milestone::kDecodeBound);
}

}  // namespace triptych::scheduler
