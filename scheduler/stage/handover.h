#pragma once

// Outputs on their way to a consumer and inputs on their way in: between workers through
// scheduler/transfer, inside this worker in memory.

#include <optional>
#include <vector>

#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

// ---- sending ----
// Tells the consumer's worker what will come.
void OfferEmbedding(StageState& state, EncodeTask& task);
// The same for the KV of a prefill task, to the decode task that it is bound to; replaces an
// earlier one. Nothing for a consumer on this worker.
void OfferKv(StageState& state, PrefillTask& task);
// No more pieces of this output; buffers in use come back when they are free.
void StopSending(StageState& state, std::optional<OutgoingPieces>& outgoing);

// ---- receiving ----
// The reservations of the items; of the KV.
void ExpectItems(StageState& state, const PrefillTask& task);
void ExpectKv(StageState& state, DecodeTask& task);
// The table entry of one item: its embedding comes from that producer, whatever came before.
void BindProducer(StageState& state, PrefillTask& task, const InputProducer& input);
void StopReceiving(StageState& state, const TaskId& consumer);
// The item is in its slots.
void ItemIsHere(StageState& state, PrefillTask& task, int32_t item);

// ---- steps ----
// Imports of all pieces that landed: before the rows of the same step, which may read them. Exports
// of what is computed (by this very step too) and granted.
void PlanImports(StageState& state, StepPlan& plan, StepRecord& record);
void PlanExports(StageState& state, StepPlan& plan, StepRecord& record);
void ImportsDone(StageState& state, const StepRecord& record);
void ExportsDone(StageState& state, const StepRecord& record,
                 const std::vector<ExportResult>& results);

// Carries out what the transfer machines ask for, in order; false when there was nothing. To be
// called after every event, and before a step that uses what they acquired.
bool ForwardTransfers(StageState& state);

// ---- in memory ----
// Decode tasks that wait for a prefill task of this worker take its blocks once it is done.
void TakeOver(StageState& state, PrefillTask& producer);

}  // namespace triptych::scheduler
