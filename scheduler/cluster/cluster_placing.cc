// Work meets workers: late, and in one move.

#include <algorithm>
#include <utility>

#include "scheduler/cluster/cluster_scheduler.h"
#include "scheduler/cluster/decode_binding.h"
#include "scheduler/cluster/encode_spreading.h"
#include "scheduler/cluster/placement.h"
#include "scheduler/plan/task_pass.h"

namespace triptych::scheduler {
namespace {

EncodeNeed NeedOf(const ItemCost& item, Incarnation consumer) {
  return {.patches = item.patches, .num_tokens = item.num_tokens, .consumer = consumer};
}

// How often choices look at every worker, not only at the least busy: what fits few must find them.
constexpr base::Duration kThoroughEvery = std::chrono::milliseconds(20);

int64_t CostIn(Stage stage, const Request& request, int32_t item) {
  if (stage == Stage::kEncode) return request.submit.items[item].patches;
  return stage == Stage::kPrefill ? request.prompt_tokens() : 1;
}

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

uint64_t ClusterScheduler::PassFor(RequestId request, Stage stage, const PlacedTask& task) const {
  return PassOf(gateways_.at(request.gateway).hello.pass_key,
                {.request = request,
                 .task = task.task,
                 .worker = task.worker,
                 .stage = stage,
                 .epoch = stage == Stage::kEncode ? OutputEpoch() : task.epoch});
}

void ClusterScheduler::Place(base::TimePoint now) {
  if (recovering_) return;
  for (auto& [fingerprint, pool] : pools_) {
    if (!pool->dirty) continue;
    pool->view.thorough = now - pool->thorough_at >= kThoroughEvery;
    if (pool->view.thorough) pool->thorough_at = now;
    PlaceIn(pool.get(), now);
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
    // A newcomer's items do not overtake those of a prompt that came before it.
    const auto& waiting = pool->want_encoder;
    if (!waiting.empty() && !pool->with_items.empty() &&
        *waiting.begin() < *pool->with_items.begin()) {
      encoders_full = true;
    }
    std::optional<Rank> next;
    if (!pool->text_only.empty()) next = *pool->text_only.begin();
    if (!encoders_full && !pool->with_items.empty()) {
      const Rank& other = *pool->with_items.begin();
      if (!next.has_value() || other < *next) next = other;
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
  const PrefillNeed need{request->prompt_tokens(), request->submit.items,
                         request->headroom_blocks()};
  const Choice choice = ChoosePrefillWorker(pool->view, need, config_, now);
  if (choice.worker == nullptr) {
    if (choice.otherwise == Choice::Otherwise::kWait) return Outcome::kNoRoom;
    SetAside(pool, request);
    return Outcome::kPlaced;
  }
  Worker* worker = FindWorker(choice.worker->profile.incarnation);
  const std::vector<ItemCost>& items = request->submit.items;
  if (!items.empty()) {
    const EncodeNeed first = NeedOf(items[0], worker->view.profile.incarnation);
    const Choice encoder = ChooseEncoder(pool->view, first, config_, now);
    if (encoder.worker == nullptr) {
      if (encoder.otherwise == Choice::Otherwise::kWait) return Outcome::kNoEncoder;
      SetAside(pool, request);
      return Outcome::kPlaced;
    }
  }
  Dequeue(request);
  fair_.Reach(request->rank.age);
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
                       .prompt_tokens = need.prompt_tokens,
                       .priority = request->rank.priority,
                       .age = request->rank.age,
                       .pass = PassFor(submit.request, Stage::kPrefill, state.prefill)};
  for (const ItemCost& item : submit.items) assign.item_tokens.push_back(item.num_tokens);
  Send(worker, std::move(assign));
  request->state = std::move(state);
  Tell(*request, RequestProgress::Milestone::kPlaced);
  if (!submit.items.empty()) std::get<InPrefill>(request->state).prefill.credit.AwaitInput();
  if (submit.items.empty()) {
    AllLanded(request);
  } else if (BindEncodersOf(pool, request, now) != Outcome::kPlaced) {
    pool->want_encoder.insert(request->rank);
  }
}

void ClusterScheduler::Tell(const Request& request, RequestProgress::Milestone milestone) {
  const RequestId id = request.submit.request;
  actions_.emplace_back(ToGateway{id.gateway, RequestProgress{id, milestone}});
}

// It fits no worker of now, but some may be back: nobody waits behind it.
void ClusterScheduler::SetAside(Pool* pool, Request* request) {
  (request->submit.items.empty() ? pool->text_only : pool->with_items).erase(request->rank);
  pool->aside.insert(request->rank);
}

void ClusterScheduler::TakeBack(Pool* pool) {
  for (const Rank& rank : std::exchange(pool->aside, {})) {
    const bool text = FindRequest(rank.request)->submit.items.empty();
    (text ? pool->text_only : pool->with_items).insert(rank);
  }
}

// In the order of rank. Behind one that has to wait only those go on whose prefill worker can
// encode the item itself: they take nothing that it waits for, and their slots may be what it waits
// for.
void ClusterScheduler::BindEncoders(Pool* pool, base::TimePoint now) {
  bool waits = false;
  for (auto next = pool->want_encoder.begin(); next != pool->want_encoder.end();) {
    Request* request = FindRequest((next++)->request);
    if (waits) {
      EncodeInPlace(pool, request);
    } else {
      waits = BindEncodersOf(pool, request, now) == Outcome::kNoEncoder;
      if (waits) EncodeInPlace(pool, request);
    }
  }
}

void ClusterScheduler::EncodeInPlace(Pool* pool, Request* request) {
  auto& state = std::get<InPrefill>(request->state);
  const WorkerView* own = pool->view.Find(state.prefill.worker, Stage::kEncode);
  if (own == nullptr) return;
  bool all = true;
  for (size_t item = 0; item < state.items.size(); ++item) {
    if (state.items[item].landed || state.items[item].encode.has_value()) continue;
    const EncodeNeed need = NeedOf(request->submit.items[item], state.prefill.worker);
    if (FitsInPlace(*own, need, config_)) {
      AssignItem(request, static_cast<int32_t>(item), FindWorker(state.prefill.worker), Amount());
    } else {
      all = false;
    }
  }
  if (all) pool->want_encoder.erase(request->rank);
}

ClusterScheduler::Outcome ClusterScheduler::BindEncodersOf(Pool* pool, Request* request,
                                                           base::TimePoint now) {
  auto& state = std::get<InPrefill>(request->state);
  for (size_t item = 0; item < state.items.size(); ++item) {
    if (state.items[item].landed || state.items[item].encode.has_value()) continue;
    const EncodeNeed need = NeedOf(request->submit.items[item], state.prefill.worker);
    const Choice choice = ChooseEncoder(pool->view, need, config_, now);
    if (choice.worker == nullptr) {
      const bool later = choice.otherwise == Choice::Otherwise::kWait;
      return later ? Outcome::kNoEncoder : Outcome::kTooLarge;
    }
    Worker* encoder = FindWorker(choice.worker->profile.incarnation);
    AssignItem(request, static_cast<int32_t>(item), encoder, EncodeAmount(encoder->view, need));
  }
  pool->want_encoder.erase(request->rank);
  return Outcome::kPlaced;
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
                             .consumer_worker = consumer->address(),
                             .priority = request->rank.priority,
                             .age = request->rank.age,
                             .pass = PassFor(submit.request, Stage::kEncode, encode)});
  Send(consumer, Rebind{state.prefill.task, {item, encode.task}});
  state.items[item].encode = std::move(encode);
  state.items[item].told = consumer->sequence;
}

// At home, where the worker that has the KV also decodes; else elsewhere.
void ClusterScheduler::WantDecode(Request* request) {
  Pool* pool = PoolOf(*request);
  const Incarnation holder = std::get<AwaitsDecode>(request->state).prefill.worker;
  const Worker* worker = FindWorker(holder);
  const bool home = worker != nullptr && worker->view.profile.roles.has(Stage::kDecode);
  (home ? pool->want_decode_at_home[holder] : pool->want_decode).insert(request->rank);
  pool->dirty = true;
}

void ClusterScheduler::WantsDecodeNoMore(Request* request) {
  const auto* awaiting = std::get_if<AwaitsDecode>(&request->state);
  if (awaiting == nullptr) return;
  Pool* pool = PoolOf(*request);
  pool->want_decode.erase(request->rank);
  auto home = pool->want_decode_at_home.find(awaiting->prefill.worker);
  if (home == pool->want_decode_at_home.end()) return;
  home->second.erase(request->rank);
  if (home->second.empty()) pool->want_decode_at_home.erase(home);
}

void ClusterScheduler::BindDecodes(Pool* pool, base::TimePoint now) {
  // Those at home need no room, so they overtake nobody; a worker that drains finishes them too.
  std::vector<std::pair<Rank, Worker*>> at_home;
  for (const auto& [incarnation, ranks] : pool->want_decode_at_home) {
    Worker* home = FindWorker(incarnation);
    if (!home->view.IsOpen(Stage::kDecode)) continue;
    for (const Rank& rank : ranks) at_home.emplace_back(rank, home);
  }
  for (const auto& [rank, home] : at_home) BindDecode(FindRequest(rank.request), home, Amount());
  for (auto next = pool->want_decode.begin(); next != pool->want_decode.end();) {
    Request* request = FindRequest((next++)->request);
    const PlacedTask& prefill = std::get<AwaitsDecode>(request->state).prefill;
    const DecodeNeed need{prefill.prompt_tokens, prefill.worker, request->headroom_blocks()};
    const Choice choice = ChooseDecodeWorker(pool->view, need, now);
    if (choice.worker != nullptr) {
      Worker* worker = FindWorker(choice.worker->profile.incarnation);
      BindDecode(request, worker, DecodeAmount(worker->view, need));
    } else if (choice.otherwise == Choice::Otherwise::kWait) {
      return;  // nobody overtakes one that waits for room
    }
  }
}

void ClusterScheduler::BindDecode(Request* request, Worker* worker, const Amount& need) {
  WantsDecodeNoMore(request);
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
                            .producer_worker = producer->address(),
                            .priority = request->rank.priority,
                            .age = request->rank.age,
                            .pass = PassFor(id, Stage::kDecode, state.decode)});
  Send(producer, BindConsumer{state.prefill.task, state.decode.task, worker->address()});
  state.told = producer->sequence;
  request->state = std::move(state);
  Tell(*request, RequestProgress::Milestone::kDecodeBound);
}

}  // namespace triptych::scheduler
