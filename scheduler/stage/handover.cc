#include "scheduler/stage/handover.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
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

// The transfer is over, one way or the other.
void Forget(StageState& state, std::optional<OutgoingPieces>& outgoing) {
  if (outgoing.has_value() && outgoing->awaits_token.has_value()) {
    state.sender.DropStaged(outgoing->awaits_token->buffer.id);
  }
  outgoing.reset();
}

// The slots are free once their export is over; from now on the task is only remembered.
void EndDelivery(StageState& state, EncodeTask& task) {
  Forget(state, task.outgoing);
  RetireSlots(state, task);
  task.state = EncodeDelivered{};
}

void On(StageState& state, const TransferGranted& event) {
  if (OutgoingPieces* outgoing = FindOutgoing(state, event.key)) outgoing->granted = true;
}

void On(StageState& state, const TransferDelivered& event) {
  if (FindOutgoing(state, event.key) == nullptr) return;
  if (PrefillTask* prefill = Find(state.prefills, event.key.producer)) {
    Forget(state, prefill->outgoing);
  }
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
    return Fail(state, event.key.producer, status, event.peer);
  }
  // A decode worker out of reach is no reason to give up KV: the scheduler binds another one.
  PrefillTask& prefill = state.prefills.at(event.key.producer);
  Forget(state, prefill.outgoing);
  if (unwanted) return;
  if (!absl::IsUnavailable(event.status)) return Fail(state, event.key.producer, status);
  prefill.out_of_reach = true;
  state.Tell(ConsumerUnreachable{event.key.producer, event.key.consumer, event.peer});
}

void On(StageState&, const StagingFree&) {}  // the next plan will ask again

void On(StageState& state, const PieceLanded& piece) {
  const PrefillTask* prefill = Find(state.prefills, piece.consumer);
  const DecodeTask* decode = Find(state.decodes, piece.consumer);
  uint64_t life = 0;
  if (prefill != nullptr) life = prefill->life;
  if (decode != nullptr) life = decode->life;
  state.landed.push_back({.piece = piece, .life = life});
}

// It comes with the last piece; the input is here when that is imported.
void On(StageState& state, const TransferReceived& event) {
  CHECK_TRUE(!state.landed.empty());
  LandedPiece& last = state.landed.back();
  CHECK_TRUE(last.piece.consumer == event.consumer && last.piece.item == event.item);
  last.completes = event;
  PrefillTask* prefill = Find(state.prefills, event.consumer);
  if (prefill == nullptr) return;
  PrefillItem& item = prefill->items.at(event.item);
  if (item.producer == event.producer) item.received = true;
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
  if (waiting == nullptr) return std::nullopt;
  spec.pages = waiting->blocks.Pages(piece.range.token_end);
  return spec;
}

// ---- exports ----

// How one output is cut: pieces of `units` * `unit` tokens and `layers` layers at most.
struct Cut {
  int32_t unit = 1;  // tokens; a piece ends at a multiple, or with the output
  int64_t units = 1;
  int32_t num_layers = 0;  // embeddings have none
  int32_t layers = 0;
  int64_t token_bytes = 0;  // of those layers
};

Cut CutOf(const StageConfig& config, TransferKind kind) {
  Cut cut{.token_bytes = config.embedding_bytes_per_token};
  if (kind == TransferKind::kKv) {
    cut.unit = config.profile.kv_block_tokens;
    cut.num_layers = config.num_layers;
    cut.layers = config.layer_group > 0 ? std::min(config.layer_group, config.num_layers)
                                        : config.num_layers;
    cut.token_bytes = config.profile.kv_bytes_per_token / config.num_layers * cut.layers;
  }
  cut.units = std::max<int64_t>(1, config.max_piece_bytes / (cut.token_bytes * cut.unit));
  return cut;
}

// Submits exports of tokens [outgoing.exported, available), layer group by layer group.
// `place(spec)` adds the pages and the step that writes them.
template <typename Place>
void ExportUpTo(StageState& state, OutgoingPieces& outgoing, int32_t available, Place place) {
  const Cut cut = CutOf(state.config, outgoing.kind);
  if (available < outgoing.num_tokens) available -= available % cut.unit;
  while (outgoing.granted && state.steps.exports() < state.config.max_pieces_in_flight) {
    if (outgoing.range_end <= outgoing.exported) {
      if (outgoing.exported >= available) return;
      outgoing.range_end = static_cast<int32_t>(
          std::min<int64_t>(available, outgoing.exported + cut.units * cut.unit));
      outgoing.layers = 0;
    }
    const CacheRange range{.kind = outgoing.kind,
                           .token_begin = outgoing.exported,
                           .token_end = outgoing.range_end,
                           .layer_begin = outgoing.layers,
                           .layer_end = std::min(cut.num_layers, outgoing.layers + cut.layers)};
    int64_t bytes = (range.token_end - range.token_begin) * cut.token_bytes;
    if (cut.layers > 0) bytes = bytes / cut.layers * (range.layer_end - range.layer_begin);
    const std::optional<PieceBuffer> buffer = state.sender.ReserveStaging(outgoing.key, bytes);
    if (!buffer.has_value()) return;
    ExportSpec spec{.task = outgoing.key.producer, .buffer = *buffer, .range = range};
    place(spec);
    state.Emit(SubmitExport{std::move(spec)});
    state.steps.ExportSubmitted({outgoing.key, outgoing.next_index++, *buffer, range});
    outgoing.layers = range.layer_end;
    if (outgoing.layers >= cut.num_layers) outgoing.exported = outgoing.range_end;
  }
}

// Pieces are exported in order, so the one with the last layers of the last tokens is the last.
bool IsLast(const StageState& state, const OutgoingPieces& outgoing, const CacheRange& range) {
  const bool all_layers =
      range.kind == TransferKind::kEmbedding || range.layer_end == state.config.num_layers;
  return all_layers && range.token_end == outgoing.num_tokens;
}

void StagePiece(StageState& state, const ExportRecord& piece, uint64_t checksum) {
  OutgoingPieces* outgoing = FindOutgoing(state, piece.key);
  if (outgoing == nullptr) return state.sender.DropStaged(piece.buffer.id);
  StagedPiece staged{.key = piece.key,
                     .index = piece.index,
                     .range = piece.range,
                     .buffer = piece.buffer,
                     .checksum = checksum};
  if (IsLast(state, *outgoing, piece.range)) {
    staged.position = Ready::Position::kLast;
    if (PrefillTask* prefill = Find(state.prefills, piece.key.producer)) {
      outgoing->awaits_token = std::move(staged);
      return StageLastPiece(state, *prefill);
    }
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
  Forget(state, outgoing);
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
  if (item.landed || item.received) return;
  // Task ids rise: an earlier word that comes late, or one that comes again, changes nothing.
  if (item.producer && input.producer <= *item.producer) return;
  item.producer = input.producer;
  state.receiver.Rebind(task.assign.task, input, state.now);
}

void StopReceiving(StageState& state, const TaskId& consumer) {
  state.receiver.Forget(consumer, state.now);
}

void PlanImports(StageState& state) {
  while (!state.landed.empty() && state.steps.imports() < state.config.max_pieces_in_flight) {
    LandedPiece landed = std::move(state.landed.front());
    state.landed.pop_front();
    if (std::optional<ImportSpec> spec = ImportOf(state, landed)) {
      state.Emit(SubmitImport{*std::move(spec)});
      state.steps.ImportSubmitted(std::move(landed));
    } else {
      state.receiver.Imported(landed.piece.buffer.id, state.now);
    }
  }
}

void PlanExports(StageState& state) {
  for (auto& [id, task] : state.encodes) {
    if (!task.outgoing.has_value()) continue;
    const auto* encoding = std::get_if<Encoding>(&task.state);
    const auto* delivering = std::get_if<DeliveringEmbedding>(&task.state);
    if (encoding == nullptr && delivering == nullptr) continue;
    ExportUpTo(state, *task.outgoing, task.assign.num_tokens, [&](ExportSpec& spec) {
      spec.pages = encoding != nullptr ? encoding->slots.Pages() : delivering->slots.Pages();
      if (encoding != nullptr) spec.after = encoding->step;
    });
  }
  for (auto& [id, task] : state.prefills) {
    if (!task.outgoing.has_value()) continue;
    const auto* running = std::get_if<Prefilling>(&task.state);
    const auto* kept = std::get_if<PrefillKept>(&task.state);
    if (running == nullptr && kept == nullptr) continue;
    const Sequence& sequence = running != nullptr ? running->sequence : kept->sequence;
    const BlockTable& blocks = running != nullptr ? running->blocks : kept->blocks;
    // The last piece goes with the token that the last row samples, so it waits for that row.
    const bool whole = kept != nullptr || sequence.available() == 0;
    const int32_t most = task.outgoing->num_tokens;
    const int32_t available = whole ? most : std::min(sequence.planned(), most - 1);
    ExportUpTo(state, *task.outgoing, available, [&](ExportSpec& spec) {
      spec.pages = blocks.Pages(spec.range.token_end);
      spec.after = sequence.WrittenBy(spec.range.token_end);
    });
  }
}

void ImportDone(StageState& state, BufferId buffer) {
  const LandedPiece landed = state.steps.ImportFinished(buffer);
  state.receiver.Imported(buffer, state.now);
  if (!landed.completes.has_value()) return;
  const TransferReceived& event = *landed.completes;
  PrefillTask* prefill = Find(state.prefills, event.consumer);
  if (prefill != nullptr && prefill->life == landed.life &&
      prefill->items.at(event.item).producer == event.producer) {
    ItemIsHere(state, *prefill, event.item);
  }
  DecodeTask* decode = Find(state.decodes, event.consumer);
  if (decode == nullptr || decode->life != landed.life) return;
  auto* waiting = std::get_if<AwaitingKv>(&decode->state);
  if (waiting == nullptr || waiting->first.has_value()) return;
  waiting->first = event.first_token;
  StartDecode(state, *decode);
}

void ExportDone(StageState& state, const ExportResult& result) {
  const ExportRecord record = state.steps.ExportFinished(result.buffer);
  StagePiece(state, record, result.checksum);
}

void StageLastPiece(StageState& state, PrefillTask& task) {
  const auto* kept = std::get_if<PrefillKept>(&task.state);
  if (kept == nullptr || !task.outgoing.has_value()) return;
  std::optional<StagedPiece> staged = std::exchange(task.outgoing->awaits_token, std::nullopt);
  if (!staged.has_value()) return;
  staged->first_token = kept->first;
  state.sender.PieceStaged(*staged, state.now);
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
