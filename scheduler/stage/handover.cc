#include "scheduler/stage/handover.h"

#include <algorithm>
#include <utility>

#include "scheduler/stage/admission.h"
#include "scheduler/stage/inputs.h"

namespace triptych::scheduler {
namespace {

// ---- what the transfer machines tell ----

OutgoingPieces* FindOutgoing(StageState& state, const TransferKey& key) {
  EncodeTask* encode = Find(state.encodes, key.producer);
  if (encode != nullptr && encode->outgoing && encode->outgoing->key == key) {
    return &*encode->outgoing;
  }
  PrefillTask* prefill = Find(state.prefills, key.producer);
  if (prefill != nullptr && prefill->outgoing && prefill->outgoing->key == key) {
    return &*prefill->outgoing;
  }
  return nullptr;
}

// The slots are free once their export is over; from now on the task is only remembered.
void EndDelivery(StageState& state, EncodeTask& task) {
  task.outgoing.reset();
  RetireSlots(state, task);
  task.state = EncodeDelivered{};
}

void On(StageState& state, const TransferGranted& event) {
  if (OutgoingPieces* outgoing = FindOutgoing(state, event.key)) outgoing->granted = true;
}

void On(StageState& state, const TransferDelivered& event) {
  if (FindOutgoing(state, event.key) == nullptr) return;
  if (PrefillTask* prefill = Find(state.prefills, event.key.producer)) prefill->outgoing.reset();
  EncodeTask* encode = Find(state.encodes, event.key.producer);
  if (encode == nullptr) return;
  EndDelivery(state, *encode);
  state.Tell(TaskDelivered{event.key.producer});
}

void On(StageState& state, const TransferFailed& event) {
  if (FindOutgoing(state, event.key) == nullptr) return;
  const bool unwanted = absl::IsCancelled(event.status);
  // Another worker may have more luck with the same bytes.
  const absl::Status status = absl::IsDataLoss(event.status)
                                  ? absl::UnavailableError(event.status.message())
                                  : event.status;
  if (EncodeTask* encode = Find(state.encodes, event.key.producer)) {
    if (unwanted) return EndDelivery(state, *encode);
    return Fail(state, event.key.producer, status);
  }
  // A lost decode worker is no reason to give up KV: the scheduler binds another one.
  Find(state.prefills, event.key.producer)->outgoing.reset();
  if (!unwanted && !absl::IsUnavailable(event.status)) Fail(state, event.key.producer, status);
}

void On(StageState&, const StagingFree&) {}  // the next plan will ask again

void On(StageState& state, const PieceLanded& piece) {
  const PrefillTask* prefill = Find(state.prefills, piece.consumer);
  const DecodeTask* decode = Find(state.decodes, piece.consumer);
  uint64_t life = 0;
  if (prefill != nullptr) life = prefill->life;
  if (decode != nullptr) life = decode->life;
  state.landed.push_back({piece, life});
}

void On(StageState& state, const TransferReceived& event) {
  PrefillTask* prefill = Find(state.prefills, event.consumer);
  if (prefill != nullptr && prefill->items.at(event.item).producer == event.producer) {
    ItemIsHere(state, *prefill, event.item);
  }
  DecodeTask* decode = Find(state.decodes, event.consumer);
  auto* waiting = decode ? std::get_if<AwaitingKv>(&decode->state) : nullptr;
  if (waiting == nullptr || waiting->first.has_value()) return;
  waiting->first = event.first_token;
  StartDecode(state, *decode);
}

template <typename Action>
void On(StageState& state, const Action& action) {
  state.Emit(action);
}

// ---- imports ----

// Where the piece belongs; nothing when its consumer has no use for it any more.
std::optional<ImportSpec> ImportOf(StageState& state, const LandedPiece& landed) {
  const PieceLanded& piece = landed.piece;
  ImportSpec spec{.task = piece.consumer, .buffer = piece.buffer, .range = piece.range};
  if (const PrefillTask* task = Find(state.prefills, piece.consumer)) {
    const PrefillItem& item = task->items.at(piece.item);
    if (task->life != landed.life || item.slots.empty()) return std::nullopt;
    spec.pages = item.slots.Pages();
    return spec;
  }
  const DecodeTask* task = Find(state.decodes, piece.consumer);
  if (task == nullptr || task->life != landed.life) return std::nullopt;
  const auto* waiting = std::get_if<AwaitingKv>(&task->state);
  const auto* running = std::get_if<Decoding>(&task->state);
  if (waiting == nullptr && running == nullptr) return std::nullopt;
  const BlockTable& blocks = waiting != nullptr ? waiting->blocks : running->blocks;
  spec.pages = blocks.Pages(piece.range.token_end);
  return spec;
}

// ---- exports ----

// Plans exports of tokens [outgoing.exported, available), `whole` pieces of at most `piece_tokens`.
template <typename Place>
void ExportUpTo(StageState& state, OutgoingPieces& outgoing, int32_t available, Place place,
                std::pair<StepPlan*, StepRecord*> step) {
  const bool kv = outgoing.kind == TransferKind::kKv;
  const int64_t token_bytes =
      kv ? state.config.profile.kv_bytes_per_token : state.config.embedding_bytes_per_token;
  const int32_t unit = kv ? state.config.profile.kv_block_tokens : 1;
  const int64_t most = std::max<int64_t>(1, state.config.max_piece_bytes / (token_bytes * unit));
  if (available < outgoing.num_tokens) available -= available % unit;
  while (outgoing.granted && outgoing.exported < available) {
    const auto end =
        static_cast<int32_t>(std::min<int64_t>(available, outgoing.exported + most * unit));
    const std::optional<PieceBuffer> buffer =
        state.sender.ReserveStaging(outgoing.key, (end - outgoing.exported) * token_bytes);
    if (!buffer.has_value()) return;
    CacheRange range{.kind = outgoing.kind, .token_begin = outgoing.exported, .token_end = end};
    if (kv) range.layer_end = state.config.num_layers;
    ExportSpec spec{.task = outgoing.key.producer, .buffer = *buffer, .range = range};
    place(spec);
    step.first->exports.push_back(std::move(spec));
    step.second->exports.push_back({outgoing.key, outgoing.next_index++, *buffer, range});
    outgoing.exported = end;
  }
}

void StagePiece(StageState& state, const StepRecord::Export& piece, uint64_t checksum) {
  const OutgoingPieces* outgoing = FindOutgoing(state, piece.key);
  if (outgoing == nullptr) return state.sender.DropStaged(piece.buffer.id);
  StagedPiece staged{.key = piece.key,
                     .index = piece.index,
                     .range = piece.range,
                     .buffer = piece.buffer,
                     .checksum = checksum};
  if (piece.range.token_end == outgoing->num_tokens) {
    staged.position = Ready::Position::kLast;
    const PrefillTask* prefill = Find(state.prefills, piece.key.producer);
    // The last tokens of a prompt are computed by the row that samples.
    if (prefill != nullptr) staged.first_token = std::get<PrefillKept>(prefill->state).first;
  }
  state.sender.PieceStaged(staged, state.now);
}

}  // namespace

void OfferEmbedding(StageState& state, EncodeTask& task) {
  task.outgoing = OutgoingPieces{
      .key = {task.assign.task, task.assign.consumer, task.assign.item, state.NewAttempt()},
      .kind = TransferKind::kEmbedding,
      .num_tokens = task.assign.num_tokens};
  state.sender.Offer({.key = task.outgoing->key,
                      .peer = task.assign.consumer_worker,
                      .kind = TransferKind::kEmbedding,
                      .num_tokens = task.assign.num_tokens,
                      .bytes = task.assign.num_tokens * state.config.embedding_bytes_per_token},
                     state.now);
}

void OfferKv(StageState& state, PrefillTask& task) {
  StopSending(state, task.outgoing);
  const auto* kept = std::get_if<PrefillKept>(&task.state);
  const bool over = std::holds_alternative<PrefillBroken>(task.state) ||
                    (kept != nullptr && kept->finish != Finish::kNone);
  if (over || task.consumer->consumer_worker.incarnation == state.own()) return;
  if (kept != nullptr && kept->taken_over) {
    return Fail(state, task.assign.task, absl::UnavailableError("its KV was taken over"));
  }
  // What both ends were assigned; sent tokens that the scheduler did not know of are beyond it.
  const int32_t num_tokens = task.assign.prompt_tokens;
  task.outgoing =
      OutgoingPieces{.key = {task.assign.task, task.consumer->consumer, -1, state.NewAttempt()},
                     .kind = TransferKind::kKv,
                     .num_tokens = num_tokens};
  state.sender.Offer({.key = task.outgoing->key,
                      .peer = task.consumer->consumer_worker,
                      .kind = TransferKind::kKv,
                      .num_tokens = num_tokens,
                      .bytes = num_tokens * state.config.profile.kv_bytes_per_token},
                     state.now);
}

void StopSending(StageState& state, std::optional<OutgoingPieces>& outgoing) {
  if (outgoing.has_value()) state.sender.Cancel(outgoing->key, state.now);
  outgoing.reset();
}

void ExpectItems(StageState& state, const PrefillTask& task) {
  for (size_t i = 0; i < task.items.size(); ++i) {
    const int32_t tokens = task.items[i].num_tokens;
    state.receiver.Expect({.consumer = task.assign.task,
                           .item = static_cast<int32_t>(i),
                           .producer = std::nullopt,
                           .kind = TransferKind::kEmbedding,
                           .num_tokens = tokens,
                           .bytes = tokens * state.config.embedding_bytes_per_token},
                          state.now);
  }
}

void ExpectKv(StageState& state, DecodeTask& task) {
  const int32_t tokens = task.assign.prompt_tokens;
  state.receiver.Expect({.consumer = task.assign.task,
                         .producer = task.assign.producer,
                         .kind = TransferKind::kKv,
                         .num_tokens = tokens,
                         .num_layers = state.config.num_layers,
                         .bytes = tokens * state.config.profile.kv_bytes_per_token},
                        state.now);
}

void BindProducer(StageState& state, PrefillTask& task, const InputProducer& input) {
  if (input.item < 0 || input.item >= static_cast<int32_t>(task.items.size())) return;
  PrefillItem& item = task.items[input.item];
  if (item.landed) return;
  item.producer = input.producer;
  state.receiver.Rebind(task.assign.task, input, state.now);
}

void StopReceiving(StageState& state, const TaskId& consumer) {
  state.receiver.Forget(consumer, state.now);
}

void PlanImports(StageState& state, StepPlan& plan, StepRecord& record) {
  for (const LandedPiece& landed : std::exchange(state.landed, {})) {
    std::optional<ImportSpec> spec = ImportOf(state, landed);
    if (!spec.has_value()) {
      state.receiver.Imported(landed.piece.buffer.id, state.now);
      continue;
    }
    plan.imports.push_back(*std::move(spec));
    record.imports.push_back(landed.piece.buffer.id);
  }
}

void PlanExports(StageState& state, StepPlan& plan, StepRecord& record) {
  const std::pair step(&plan, &record);
  for (auto& [id, task] : state.encodes) {
    const BlockHandle* slots = nullptr;
    if (auto* s = std::get_if<Encoding>(&task.state)) slots = &s->slots;
    if (auto* s = std::get_if<DeliveringEmbedding>(&task.state)) slots = &s->slots;
    if (slots == nullptr || !task.outgoing.has_value()) continue;
    ExportUpTo(
        state, *task.outgoing, task.assign.num_tokens,
        [&](ExportSpec& spec) { spec.pages = slots->Pages(); }, step);
  }
  for (auto& [id, task] : state.prefills) {
    if (!task.outgoing.has_value()) continue;
    const auto* running = std::get_if<Prefilling>(&task.state);
    const auto* kept = std::get_if<PrefillKept>(&task.state);
    if (running == nullptr && kept == nullptr) continue;
    const Sequence& sequence = running != nullptr ? running->sequence : kept->sequence;
    const BlockTable& blocks = running != nullptr ? running->blocks : kept->blocks;
    // The last piece carries the token that the last row samples, so it waits for that row.
    const bool whole = kept != nullptr || sequence.available() == 0;
    const int32_t most = task.outgoing->num_tokens;
    const int32_t available = whole ? most : std::min(sequence.planned(), most - 1);
    ExportUpTo(
        state, *task.outgoing, available,
        [&](ExportSpec& spec) { spec.pages = blocks.Pages(spec.range.token_end); }, step);
  }
  ForwardTransfers(state);
}

void ImportsDone(StageState& state, const StepRecord& record) {
  for (BufferId buffer : record.imports) state.receiver.Imported(buffer, state.now);
}

void ExportsDone(StageState& state, const StepRecord& record,
                 const std::vector<ExportResult>& results) {
  CHECK_EQ(record.exports.size(), results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    CHECK_TRUE(record.exports[i].buffer.id == results[i].buffer);
    StagePiece(state, record.exports[i], results[i].checksum);
  }
}

bool ForwardTransfers(StageState& state) {
  bool any = false;
  while (true) {
    std::vector<TransferAction> actions = state.sender.TakeActions();
    for (TransferAction& action : state.receiver.TakeActions()) {
      actions.push_back(std::move(action));
    }
    if (actions.empty()) return any;
    any = true;
    for (const TransferAction& action : actions) {
      std::visit([&](const auto& a) { On(state, a); }, action);
    }
  }
}

}  // namespace triptych::scheduler
