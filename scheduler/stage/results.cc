#include "scheduler/stage/results.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "scheduler/stage/admission.h"
#include "scheduler/stage/handover.h"
#include "scheduler/stage/token_flow.h"

namespace triptych::scheduler {
namespace {

absl::Status NumericalError() { return absl::InternalError("numerical_error"); }

// An engine that gives a token that the model does not have has computed nonsense: nobody else may
// see it.
bool IsBroken(const StageState& state, const RowResult& result) {
  return result.numerical_error ||
         std::any_of(result.tokens.begin(), result.tokens.end(),
                     [&](const SampledToken& t) { return !state.config.IsToken(t.token); });
}

// Slots whose last reader has finished.
void FreeReadItems(StageState& state, PrefillTask& task, const Sequence& sequence) {
  for (size_t i = 0; i < task.items.size(); ++i) {
    if (sequence.layout().items[i].end > sequence.done()) return;
    state.steps.RetireSlots(std::exchange(task.items[i].slots, BlockHandle()));
  }
}

void BreakPrefill(StageState& state, PrefillTask& task, Prefilling& running) {
  StopSending(state, task.outgoing);
  state.steps.Retire(running.blocks.TakeBlocks());
  task.state = PrefillBroken{};
  task.outbox->Fail(NumericalError());
  FlushTokens(state, *task.outbox);
}

void PrefillRowDone(StageState& state, PrefillTask& task, const RowResult& result) {
  auto* running = std::get_if<Prefilling>(&task.state);
  if (running == nullptr) return;
  Sequence& sequence = running->sequence;
  const int32_t index = sequence.answer_tokens();
  if (IsBroken(state, result) || !sequence.FinishRow(result.tokens)) {
    return BreakPrefill(state, task, *running);
  }
  FreeReadItems(state, task, sequence);
  if (sequence.answer_tokens() == index) return;
  const SampledToken& token = result.tokens.front();
  const Finish finish = sequence.finish();
  task.outbox->Push(token);
  task.outbox->End(finish);
  FlushTokens(state, *task.outbox);
  state.Tell(FirstTokenSampled{task.assign.task, finish});
  PrefillKept kept{.blocks = std::move(running->blocks),
                   .sequence = std::move(sequence),
                   .first = {index, token},
                   .finish = finish};
  if (finish != Finish::kNone) {
    StopSending(state, task.outgoing);
    state.steps.Retire(kept.blocks.TakeBlocks());
  }
  task.state = std::move(kept);
  StageLastPiece(state, task);
  TakeOver(state, task);
}

void ConcludeDecode(StageState& state, DecodeTask& task, Decoding& running) {
  state.steps.Retire(running.blocks.TakeBlocks());
  task.state = DecodeConcluding{};
  FlushTokens(state, *task.outbox);
}

void DecodeRowDone(StageState& state, DecodeTask& task, const RowResult& result) {
  auto* running = std::get_if<Decoding>(&task.state);
  if (running == nullptr) return;  // overrun after the last token
  Sequence& sequence = running->sequence;
  const int32_t index = sequence.answer_tokens();
  if (IsBroken(state, result) || !sequence.FinishRow(result.tokens)) {
    task.outbox->Fail(NumericalError());
    return ConcludeDecode(state, task, *running);
  }
  if (sequence.answer_tokens() == index) return;
  task.outbox->Push(result.tokens.front());
  const Finish finish = sequence.finish();
  if (finish == Finish::kNone) return FlushTokens(state, *task.outbox);
  task.outbox->End(finish);
  ConcludeDecode(state, task, *running);
}

void EncodeDone(StageState& state, EncodeTask& task) {
  auto* encoding = std::get_if<Encoding>(&task.state);
  if (encoding == nullptr) return;
  if (!task.local) {
    task.state = DeliveringEmbedding{std::move(encoding->slots)};
    return;
  }
  const uint64_t consumer_life = encoding->consumer_life;
  task.state = EncodeDelivered{};
  state.Tell(TaskDelivered{task.assign.task});
  PrefillTask* consumer = Find(state.prefills, task.assign.consumer);
  if (consumer == nullptr || consumer->life != consumer_life) return;
  const PrefillItem& item = consumer->items[task.assign.item];
  if (item.producer == task.assign.task) ItemIsHere(state, *consumer, task.assign.item);
}

// What the step did of each stage, in that stage's cost unit.
void LearnCost(StageState& state, const StepRecord& record, double seconds) {
  StepCost::Work work;
  for (const StepRecord::Encode& encode : record.encodes) {
    work.units[static_cast<int>(Stage::kEncode)] += static_cast<double>(encode.patches);
  }
  for (const StepRecord::Row& row : record.rows) {
    work.units[static_cast<int>(row.stage)] += row.tokens;
    work.context += static_cast<double>(row.tokens) * row.context;
  }
  state.cost[static_cast<int>(record.lane)].Learn(work, seconds);
}

}  // namespace

void StepDone(StageState& state, const StepResult& result) {
  const StepRecord record = state.steps.Finished(result.lane, result.id);
  CHECK_EQ(record.rows.size(), result.rows.size());
  LearnCost(state, record, result.seconds);
  for (const StepRecord::Encode& encode : record.encodes) {
    EncodeTask* task = Find(state.encodes, encode.task);
    if (task != nullptr && task->life == encode.life) EncodeDone(state, *task);
  }
  for (size_t i = 0; i < record.rows.size(); ++i) {
    const StepRecord::Row& row = record.rows[i];
    PrefillTask* prefill = Find(state.prefills, row.task);
    if (prefill != nullptr && prefill->life == row.life) {
      PrefillRowDone(state, *prefill, result.rows[i]);
    }
    DecodeTask* decode = Find(state.decodes, row.task);
    if (decode != nullptr && decode->life == row.life) {
      DecodeRowDone(state, *decode, result.rows[i]);
    }
  }
}

}  // namespace triptych::scheduler
